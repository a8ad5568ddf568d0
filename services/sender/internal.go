package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

const (
	internalBatch = 100
	// internalIdle without a line closes the connection.
	internalIdle = time.Minute
	// internalGrace is how long lines are still taken after the stop has begun, so that those about the stop
	// get out.
	internalGrace = 700 * time.Millisecond
	// takenTime is how long the endpoint's TCP may take to acknowledge a batch.
	takenTime       = 30 * time.Second
	internalBackoff = time.Minute
)

// internal is the internal sender of an output: it brings the collector's own log lines to Devo, on a
// connection of its own. A line counts as sent when the endpoint's TCP has acknowledged it; there is no
// ledger. It shares nothing with the lanes, so its trouble is not theirs. None of its own lines is copied.
//
//	         lines                 acknowledged by TCP
//	idle ──────────> dial, write ───────────────────────> ack ──> idle
//	  ^                   │ refused, broken, not acknowledged
//	  └── wait up to 1 m ─┴──> lines given back to the stream, which drops its oldest
type internal struct {
	settings OutputSettings
	bus      *bus.Bus
	tally    *tally
	sent     metric.Int64Counter
	label    metric.MeasurementOption
	delivery *telemetry.Incident // the endpoint
	trouble  *telemetry.Incident // the bus
	down     atomic.Bool
	held     atomic.Int64

	pull *bus.Pull
	conn *devo.Conn
	used time.Time

	logger *slog.Logger
}

func newInternal(o Options, s OutputSettings, sent metric.Int64Counter) *internal {
	logger := telemetry.WithThread(telemetry.Uncopied(o.Logger), "OutputProcess", s.senderName(internalService, 0))
	quiet := telemetry.IncidentLevel(slog.LevelWarn)
	return &internal{
		logger: logger, settings: s, bus: o.Bus, tally: &tally{}, sent: sent,
		label:    metric.WithAttributeSet(attribute.NewSet(attribute.String("output", s.Name))),
		delivery: telemetry.NewIncident(logger, fmt.Sprintf("delivery of the collector's own log lines to %s (%s)", s.Name, s.Endpoint), quiet),
		trouble:  telemetry.NewIncident(logger, "taking the collector's own log lines for output "+s.Name, quiet),
	}
}

// run works until ctx ends, and a moment longer.
func (n *internal) run(ctx context.Context) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(internalGrace, cancel) })
	defer stop()
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = time.Second, internalBackoff
	for last.Err() == nil {
		if n.step(last) {
			waits.Reset()
			continue
		}
		n.unbind()
		n.hangUp()
		// After the stop's beginning there is no time for another try.
		if !pause(ctx, waits.NextBackOff()) {
			break
		}
	}
	n.unbind()
	n.hangUp()
}

// step takes lines and sends them; false: something failed.
func (n *internal) step(ctx context.Context) bool {
	if n.pull == nil {
		pull, err := n.bus.Pull(ctx, proto.StreamInternal, proto.OutputConsumer(n.settings.Name))
		if err != nil {
			n.reportBus(ctx, err)
			return false
		}
		n.pull = pull
	}
	msgs, err := n.pull.Next(ctx, internalBatch, idleWait)
	if err != nil {
		n.reportBus(ctx, err)
		return false
	}
	n.trouble.Resolve()
	if len(msgs) == 0 {
		n.rest(time.Now())
		return true
	}
	n.held.Store(int64(len(msgs)))
	defer n.held.Store(0)
	if err := n.send(ctx, msgs); err != nil {
		for _, m := range msgs {
			_ = m.Nak()
		}
		if ctx.Err() == nil {
			n.down.Store(true)
			n.delivery.Report(err)
		}
		return false
	}
	n.down.Store(false)
	n.delivery.Resolve()
	for _, m := range msgs {
		_ = m.Ack() // if it is lost the line is sent once more
	}
	return true
}

// rest closes a connection that has had no line for long.
func (n *internal) rest(now time.Time) {
	if idle := now.Sub(n.used); n.conn != nil && idle > internalIdle {
		n.logger.Info(fmt.Sprintf("This sender has not been used for %d seconds, it will be closed and destroyed", int(idle.Seconds())))
		n.hangUp()
	}
}

func (n *internal) reportBus(ctx context.Context, err error) {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		err = fmt.Errorf("%w; run `collector provision` with this configuration", err)
	}
	if ctx.Err() == nil {
		n.trouble.Report(err)
	}
}

// send writes a batch and returns nil when the endpoint's TCP has it.
func (n *internal) send(ctx context.Context, msgs []jetstream.Msg) error {
	var buffer []byte
	frames := 0
	for _, m := range msgs {
		if data := m.Data(); isFrame(data) {
			buffer = append(buffer, data...)
			frames++
		}
	}
	if frames == 0 {
		return nil
	}
	if err := n.connect(ctx); err != nil {
		return err
	}
	began := time.Now()
	end, err := n.conn.Write(ctx, buffer)
	n.tally.wrote(frames, time.Since(began))
	if err != nil {
		return err
	}
	n.used = time.Now()
	if err := n.taken(ctx, end); err != nil {
		return err
	}
	n.tally.confirmed(frames, int64(len(buffer)))
	n.sent.Add(ctx, int64(frames), n.label)
	return nil
}

// isFrame refuses what would spoil the frames around it.
func isFrame(data []byte) bool {
	return bytes.HasPrefix(data, []byte("<14>")) && bytes.IndexByte(data, '\n') == len(data)-1
}

// connect makes a connection and watches it for a refusal, as the lanes do after trouble.
func (n *internal) connect(ctx context.Context) error {
	if n.conn != nil {
		select {
		case <-n.conn.Gone(): // ended by the endpoint since the last line
			n.hangUp()
		default:
			return nil
		}
	}
	conn, err := devo.Dial(ctx, n.settings.Endpoint)
	if err != nil {
		return err
	}
	n.conn = conn
	select {
	case <-conn.Gone():
		return fmt.Errorf("the endpoint ended the connection at once: %w", conn.Err())
	case <-time.After(refusalTime):
		return nil
	}
}

// taken waits until the endpoint's TCP has acknowledged everything before end. Where the system cannot tell,
// the half-close has to.
func (n *internal) taken(ctx context.Context, end int64) error {
	ctx, cancel := context.WithTimeout(ctx, takenTime)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		acked, ok := n.conn.Acked()
		switch {
		case !ok:
			proof, err := n.conn.HalfClose(ctx)
			n.hangUp()
			if proof.Delivered() || proof == devo.Unanswered {
				return nil
			}
			return err
		case acked >= end:
			return nil
		}
		select {
		case <-n.conn.Gone():
			return fmt.Errorf("the connection broke: %w", n.conn.Err())
		default:
		}
		if !pause(ctx, wait) {
			return errors.New("the endpoint takes no bytes")
		}
	}
}

// hangUp ends the connection; what is on it is acknowledged or was given back.
func (n *internal) hangUp() {
	if n.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, _ = n.conn.HalfClose(ctx) // for good manners only
	_ = n.conn.Close()
	n.conn = nil
}

func (n *internal) unbind() {
	if n.pull != nil {
		n.pull.Close()
		n.pull = nil
	}
}

// monitor is the internal service's own.
func (n *internal) monitor(o Options) *monitor {
	return &monitor{
		settings: n.settings, service: internalService, stream: proto.StreamInternal, senders: 1, instance: o.Instance,
		bus: o.Bus, root: o.Logger, tally: n.tally,
		inHand: func() []int64 { return []int64{n.held.Load()} },
		open:   func() bool { return !n.down.Load() },
	}
}
