// Package dedup passes the first sighting of every alert from RAW on to UNIQUE, exactly once, and counts
// the others.
//
// For each batch of deliveries it claims the hashes that nobody claimed, in one atomic batch on the
// hashes bucket, then publishes what it owns to UNIQUE in another, and then acknowledges. Claims that may
// exist are looked up first; one that does without that being known refuses the batch, and then all are
// looked up. The claim's value is the RAW sequence that made it, which is what makes a crash at any
// instruction harmless:
//
//	delivery ── no claim ─────────────> claim it ─┐
//	         ── claimed by this sequence ─────────┴─> publish to UNIQUE (subject expected empty) ─> ack
//	         ── claimed by another sequence ──> duplicate ─────────────────────────────────────────> ack
//
// A crash after the claim redelivers the same sequence, which finds its own claim and publishes again; a
// subject that already holds the alert refuses the second copy. A duplicate is dropped only when the
// claim of the first sighting is stored, and that sighting stays in RAW until UNIQUE has it.
package dedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/telemetry"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
)

const (
	// batchSize is what one worker takes at a time. Measured: throughput grows with it up to the server's
	// limit for an atomic batch, because a batch costs four fsyncs whatever its size.
	batchSize = 1000
	// workers overlap one batch's disk writes with another's decoding. Measured: two reach what four do.
	workers = 2
	idle    = 5 * time.Second
	// newerDelay is how long a message that only a newer program can read waits before it is looked at
	// again.
	newerDelay = time.Minute
	// buryDelay is how long a message waits whose dead letter could not be written.
	buryDelay = 10 * time.Second
)

// Options of a Dedup. All fields but the last are required.
type Options struct {
	Bus    *bus.Bus
	Logger *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
	// Interrupted: the server has died, and may have forgotten what it had delivered last; see [trial.Care].
	Interrupted bool
}

// Dedup is the service. Any number of them, in any number of processes, share the work.
type Dedup struct {
	bus     *bus.Bus
	logger  *slog.Logger
	tracer  trace.Tracer
	metrics *metrics
	recent  *recent
	care    *trial.Care
	trial   *trial.Trial
	marks   *marks

	aligning sync.Mutex
	aligned  uint64 // the connection for which UNIQUE's end was compared with the ledgers

	trouble *telemetry.Incident
	full    *telemetry.Incident
	newer   *telemetry.Incident
	poison  *telemetry.Incident
}

// New makes a Dedup. It returns an error only for instruments that cannot be made.
func New(o Options) (*Dedup, error) {
	m, err := newMetrics(o.Meter)
	if err != nil {
		return nil, err
	}
	first := int64(0)
	if o.Interrupted {
		first = bus.MaxUndecided
	}
	return &Dedup{
		bus: o.Bus, logger: o.Logger, tracer: o.Tracer, metrics: m, recent: newRecent(),
		care: trial.NewCare(first), trial: trial.New(TrialWork, o.Logger), marks: &marks{trying: map[string]int{}},
		trouble: telemetry.NewIncident(o.Logger, "deduplication"),
		full:    telemetry.NewIncident(o.Logger, "passing alerts on to UNIQUE"),
		newer:   telemetry.NewIncident(o.Logger, "reading alerts of a newer version"),
		poison:  telemetry.NewIncident(o.Logger, "reading messages from RAW"),
	}, nil
}

// Run works until ctx ends and then returns nil; what is in hand is finished or left to be redelivered.
// It returns no other error: trouble with the bus is logged, counted and retried for ever.
func (d *Dedup) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() { d.work(ctx) })
	}
	group.Wait()
	d.trial.Close()
	return nil
}

func (d *Dedup) work(ctx context.Context) {
	for ctx.Err() == nil {
		if err := d.pull(ctx); err != nil && ctx.Err() == nil {
			d.trouble.Report(err)
			pause(ctx, time.Second)
		}
	}
}

// pull binds and handles batches until something fails.
func (d *Dedup) pull(ctx context.Context) error {
	if _, err := d.align(ctx); err != nil {
		return err // before the senders can go on
	}
	pull, err := d.bus.Pull(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return err
	}
	defer pull.Close()
	for {
		batch, err := pull.Next(ctx, batchSize, idle)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			continue
		}
		if err := d.handle(ctx, batch); err != nil {
			giveBack(batch)
			return err
		}
		d.trouble.Resolve()
	}
}

// giveBack returns deliveries after a failure, with a delay so that a failing batch does not spin.
func giveBack(batch []jetstream.Msg) {
	for _, m := range batch {
		_ = m.NakWithDelay(time.Second) // messages that were settled refuse this, which is right
	}
}

// handle brings every message of the batch to its end: UNIQUE, counted duplicate or DEAD. On an error
// some may be settled; the others come back.
func (d *Dedup) handle(ctx context.Context, batch []jetstream.Msg) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("handling %d messages panicked: %v", len(batch), r)
		}
	}()
	ctx, span := d.tracer.Start(ctx, "dedup", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links(batch)...),
		trace.WithAttributes(attribute.Int("messages", len(batch))))
	defer span.End()
	defer func() { telemetry.Fail(span, err) }()
	stop := keepAlive(ctx, batch)
	defer stop()

	sightings, err := d.read(ctx, batch)
	if err != nil {
		return err
	}
	if err := d.claim(ctx, sightings); err != nil {
		return err
	}
	sightings = d.separate(ctx, sightings)
	faultpoint.Hit(faultpoint.Claimed)
	if err := d.publish(ctx, sightings); err != nil {
		return err
	}
	faultpoint.Hit(faultpoint.Published)
	var unique, duplicates int64
	for _, s := range sightings {
		if err := s.msg.Ack(); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		if s.first {
			unique++
		} else {
			duplicates++
		}
	}
	faultpoint.Hit(faultpoint.DedupAcknowledged)
	span.SetAttributes(attribute.Int64("unique", unique), attribute.Int64("duplicates", duplicates))
	d.metrics.unique.Add(ctx, unique)
	d.metrics.duplicates.Add(ctx, duplicates)
	return nil
}

// publish stores the owned sightings in UNIQUE, waiting as long as UNIQUE is full: then RAW fills, and
// then the fetcher waits. Nothing is dropped and nothing grows.
func (d *Dedup) publish(ctx context.Context, sightings []*sighting) error {
	var messages []bus.Message
	for _, s := range sightings {
		if s.first && !s.env.ClaimOnly {
			messages = append(messages, bus.Message{
				Subject:     proto.UniqueSubject(s.env.Source, s.env.Generation, s.env.Hash),
				Data:        s.msg.Data(), // the envelope travels on unchanged
				MsgID:       proto.UniqueMsgID(s.env.Generation, s.env.Hash),
				ExpectEmpty: true,
				Header:      s.header(),
			})
		}
	}
	if len(messages) == 0 {
		return nil
	}
	for wait := time.Second; ; wait = min(2*wait, 10*time.Second) {
		connection, err := d.align(ctx)
		if err != nil {
			return err
		}
		err = d.bus.PublishBatchWhile(ctx, proto.StreamUnique, messages, func() bool { return d.bus.Connections() == connection })
		if errors.Is(err, bus.ErrStopped) {
			continue
		}
		if !errors.Is(err, bus.ErrFull) {
			if err == nil {
				d.full.Resolve()
			}
			return err
		}
		d.full.Report(err)
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// align makes sure, once for each connection, that UNIQUE does not give out sequences again that it has lost; it
// returns for which connection that holds. A server that was restarted is another connection.
func (d *Dedup) align(ctx context.Context) (connection uint64, err error) {
	d.aligning.Lock()
	defer d.aligning.Unlock()
	if connection = d.bus.Connections(); connection == d.aligned {
		return connection, nil
	}
	passed, err := ledger.Align(ctx, d.bus)
	if err != nil {
		return 0, err
	}
	if passed > 0 {
		d.logger.Warn(fmt.Sprintf("UNIQUE has lost its end, of which the ledgers know; %d sequences are passed over, so that none is given out a second time", passed))
	}
	d.aligned = connection
	return connection, nil
}

// keepAlive renews the deliveries while the batch is worked on, which can take long when UNIQUE is full.
func keepAlive(ctx context.Context, batch []jetstream.Msg) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		ticker := time.NewTicker(bus.AckWait / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				for _, m := range batch {
					_ = m.InProgress()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// pause waits for d; it reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
