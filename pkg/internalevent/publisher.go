package internalevent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

const (
	// batch is how many lines are stored at a time.
	batch = 100
	// linger lets lines that come together be stored together: a store costs a few disk writes, however many
	// lines it has.
	linger = 200 * time.Millisecond
	// maxWait is between tries while the bus is away.
	maxWait = 30 * time.Second
	// FlushTime bounds what [Publisher.Run] still does after its context has ended.
	FlushTime = 500 * time.Millisecond
)

// Publisher brings the log's copies onto the bus.
type Publisher struct {
	collector Collector
	copies    *telemetry.Copies
	bus       *bus.Bus
	trouble   *telemetry.Incident
	prefix    string // of the message ids
	next      int
	held      []bus.Message // taken and not known to be stored
}

// NewPublisher makes a Publisher; call [Publisher.Run]. Its own lines go to logger and are not copied.
func NewPublisher(c Collector, copies *telemetry.Copies, b *bus.Bus, logger *slog.Logger) *Publisher {
	return &Publisher{
		collector: c, copies: copies, bus: b, prefix: rand.Text(),
		trouble: telemetry.NewIncident(telemetry.Uncopied(logger), "storing the collector's own log lines for Devo", telemetry.IncidentLevel(slog.LevelWarn)),
	}
}

// Run stores lines until ctx ends, and then once more what waits, within [FlushTime]. While the bus refuses
// them it holds one batch and tries again, for ever; meanwhile the copies drop their oldest.
func (p *Publisher) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-p.copies.Ready():
			pause(ctx, linger)
			p.storeAll(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), FlushTime)
	defer cancel()
	p.storeAll(last)
}

// storeAll stores what waits, batch by batch. A batch that is not stored when ctx ends stays in hand for the
// next call.
func (p *Publisher) storeAll(ctx context.Context) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 500*time.Millisecond, maxWait
	for {
		if len(p.held) == 0 {
			lines := p.copies.Take(batch)
			if len(lines) == 0 {
				return
			}
			p.held = p.messages(lines)
		}
		err := p.store(ctx, p.held)
		if err != nil {
			if ctx.Err() == nil {
				p.trouble.Report(err)
			}
			if !pause(ctx, waits.NextBackOff()) {
				return
			}
			continue
		}
		p.held = nil
		p.trouble.Resolve()
		waits.Reset()
	}
}

// messages makes frames of lines; each has an id, so that storing it again changes nothing.
func (p *Publisher) messages(lines []telemetry.Copy) []bus.Message {
	var out []bus.Message
	for _, l := range lines {
		frame, err := p.collector.Line(l)
		if err != nil {
			p.trouble.Report(fmt.Errorf("a line of %s makes no frame: %w", l.Thread, err))
			continue
		}
		p.next++
		out = append(out, bus.Message{Subject: proto.SubjectInternalLines, Data: frame, MsgID: fmt.Sprintf("%s-%d", p.prefix, p.next)})
	}
	return out
}

// store makes one attempt. What the server will never take counts as stored.
func (p *Publisher) store(ctx context.Context, msgs []bus.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	err := p.bus.TryBatch(ctx, proto.StreamInternal, msgs)
	switch {
	case errors.Is(err, bus.ErrConflict):
		return nil // the ids are known: an earlier try, whose answer was lost, has stored the batch
	case errors.Is(err, bus.ErrTooLarge):
		p.trouble.Report(err)
		return nil
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound):
		return fault.WithHint(fmt.Errorf("stream %s: %w", proto.StreamInternal, err), "run `collector provision` with this configuration")
	}
	return err
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
