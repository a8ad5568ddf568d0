package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/telemetry"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
)

const (
	monitorPeriod = 5 * time.Second
	touchPeriod   = time.Minute
)

// output is what the lanes of one output share.
type output struct {
	settings OutputSettings
	feed     *feed
	instance string
	bus      *bus.Bus
	ledger   *ledger.Ledger
	inflight *inflight
	proof    *proofState
	manners  *manners
	tally    *tally
	care     *trial.Care
	trial    *trial.Trial // of all outputs
	// compression is nil where frames always go out plain.
	compression  *compression
	certificates *certificates
	logger       *slog.Logger
	tracer       trace.Tracer
	metrics      *metrics
	label        metric.MeasurementOption

	delivery *telemetry.Incident // the endpoint
	trouble  *telemetry.Incident // the bus
	newer    *telemetry.Incident
	poison   *telemetry.Incident

	mu   sync.Mutex
	down error // why the endpoint cannot be reached; nil while it can
}

func newOutput(o Options, s OutputSettings, m *metrics) *output {
	logger := telemetry.WithThread(o.Logger, "OutputProcess", s.managerName(standardService))
	l := ledger.Open(o.Bus, s.Name, o.Instance)
	s.Endpoint.Keyring = new(devo.Keyring)
	first := int64(0)
	if o.Interrupted {
		first = bus.MaxUnconfirmed
	}
	return &output{
		settings: s, feed: ownFeed(s.Name), instance: o.Instance, bus: o.Bus, ledger: l, inflight: newInflight(), tally: &tally{}, care: trial.NewCare(first),
		proof: newProofState(s.Name, l, logger), manners: &manners{logger: logger, name: s.Name}, logger: logger, tracer: o.Tracer, metrics: m,
		label:    metric.WithAttributeSet(attribute.NewSet(attribute.String("output", s.Name))),
		delivery: telemetry.NewIncident(logger, fmt.Sprintf("delivery to %s (%s)", s.Name, s.where())),
		trouble:  telemetry.NewIncident(logger, "taking alerts for output "+s.Name),
		newer:    telemetry.NewIncident(logger, "reading alerts of a newer version"),
		poison:   telemetry.NewIncident(logger, "making frames of alerts"),

		certificates: newCertificates(s, logger, m),
	}
}

func (s OutputSettings) where() string {
	if s.Console != nil {
		return "console"
	}
	return s.Endpoint.String()
}

// run works until ctx ends and everything in hand is settled.
func (o *output) run(ctx context.Context) {
	var replays sync.WaitGroup
	replays.Go(func() { o.replays(ctx) })
	o.work(ctx, o.settings.Connections, o.monitor, o.certificates.watch)
	replays.Wait()
}

// work runs lanes, and beside them background, until ctx ends and everything in hand is settled.
func (o *output) work(ctx context.Context, connections int, background ...func(context.Context)) {
	// What was written is settled in a context of its own, which outlives ctx by the grace.
	settle, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(StopGrace, cancel) })
	defer stop()

	var beside, lanes sync.WaitGroup
	for _, run := range append(background, o.inflight.renew) {
		beside.Go(func() { run(settle) })
	}
	for i := range connections {
		lanes.Go(func() { newLane(o, i, settle).run(ctx) })
	}
	lanes.Wait()
	cancel()
	beside.Wait()
}

// statistics is the monitor of the standard service.
func (o *output) statistics(from Options) *monitor {
	m := &monitor{
		settings: o.settings, service: standardService, stream: proto.StreamUnique, senders: o.settings.Connections, instance: from.Instance,
		bus: o.bus, root: from.Logger, tally: o.tally,
		inHand: func() []int64 { return o.inflight.byLane(o.settings.Connections) },
		open:   func() bool { return o.reachable() == nil },
	}
	if o.settings.Internal {
		m.collector = &from.Collector
	}
	return m
}

// open makes a new link.
func (o *output) open(ctx context.Context) (link, error) {
	if o.settings.Console != nil {
		return newConsole(o.settings.Console), nil
	}
	c, err := devo.Dial(ctx, o.settings.Endpoint)
	o.certificates.read()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// plausible refuses to deliver from a stream that the ledger cannot speak of: when it was recreated or
// restored from an older copy, its sequences are given out anew, and what the ledger calls confirmed are
// other alerts.
func (o *output) plausible(ctx context.Context) error {
	view, err := ledger.Read(ctx, o.bus, o.feed.ledger)
	if err != nil {
		return err
	}
	stream, err := o.bus.Stream(ctx, o.feed.stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", o.feed.stream, err)
	}
	if last := stream.CachedInfo().State.LastSeq; view.Floor > last {
		return fault.WithHint(fmt.Errorf("output %s: the ledger of %s has confirmed sequence %d, but %s ends at %d: the stream was recreated or restored from an older copy", o.settings.Name, o.feed.ledger, view.Floor, o.feed.stream, last), o.feed.remedy)
	}
	return nil
}

// fail notes that the endpoint gave trouble; recover that a delivery was confirmed.
func (o *output) fail(err error) {
	o.mu.Lock()
	o.down = err
	o.mu.Unlock()
	// By what it came to light (a dial, a write, a half-close) is no news while the trouble is the same.
	var failure *devo.Failure
	if errors.As(err, &failure) {
		err = fault.WithHint(failure, fault.Hint(err))
	}
	o.delivery.Report(err)
}

func (o *output) recover() {
	o.mu.Lock()
	o.down = nil
	o.mu.Unlock()
	o.delivery.Resolve()
}

func (o *output) reachable() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.down
}

// monitor publishes what only the bus knows, and keeps the ledger's record alive.
func (o *output) monitor(ctx context.Context) {
	o.metrics.begin(o.label)
	var touched time.Time
	for o.gauge(ctx); pause(ctx, monitorPeriod); o.gauge(ctx) {
		consumer, err := o.bus.Consumer(ctx, proto.StreamUnique, proto.OutputConsumer(o.settings.Name))
		if err != nil {
			continue // the lanes say so
		}
		info := consumer.CachedInfo()
		o.metrics.pending.Record(ctx, int64(info.NumPending)+int64(info.NumAckPending), o.label)
		if time.Since(touched) < touchPeriod {
			continue
		}
		touched = time.Now()
		round, cancel := context.WithTimeout(ctx, touchPeriod)
		if err := o.ledger.Touch(round, info.AckFloor.Stream); err != nil && ctx.Err() == nil {
			o.trouble.Report(err)
		}
		cancel()
	}
}

// gauge publishes what this process knows by itself.
func (o *output) gauge(ctx context.Context) {
	o.metrics.reachable.Record(ctx, flag(o.reachable() == nil), o.label)
	o.metrics.unproved.Record(ctx, flag(o.proof.isUnproved()), o.label)
	o.metrics.unconfirmed.Record(ctx, int64(o.inflight.len()), o.label)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
