package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

const (
	// pullSize is what a lane asks for at a time: large enough that the ledger's two writes and the request a
	// batch weigh little beside dedup, which shares the server (measured: 500 costs 5 us of CPU an alert
	// more), small enough that four lanes or replicas share what may be unconfirmed.
	pullSize = 1000
	// idleWait is how long a lane without anything unconfirmed waits for a delivery before it looks
	// around.
	idleWait = time.Second
	// busyWait is the same while something is unconfirmed: it bounds how late a rotation is.
	busyWait = 50 * time.Millisecond
	// quietTime without traffic ends a window.
	quietTime = time.Second
	// refusalTime is how long a new connection is watched after trouble, before anything is written on it:
	// under TLS 1.3 a refused certificate shows only after the handshake.
	refusalTime = 300 * time.Millisecond
	maxBackoff  = 5 * time.Second
)

// lane keeps one connection of an output busy.
type lane struct {
	output *output
	index  int             // of the connection, for the statistics
	settle context.Context // for everything that a stop must still finish

	pull      source
	window    *window
	next      *dialing // the connection of the next window, if it is on its way
	buffer    []byte   // kept from batch to batch
	packed    []byte   // the same for what is compressed
	envelopes proto.EnvelopeReader
	more      bool // the last delivery said that more was waiting
	failing   bool // the last connection brought nothing home
	waits     *backoff.ExponentialBackOff
	closing   sync.WaitGroup
	results   chan bool // one for each settled window: was it confirmed
}

// dialing is a connection that is being made.
type dialing struct {
	done chan struct{}
	link link
	err  error
}

func newLane(o *output, index int, settle context.Context) *lane {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 200*time.Millisecond, maxBackoff
	return &lane{output: o, index: index, settle: settle, waits: waits, results: make(chan bool, 64)}
}

// run works until ctx ends, then settles what is open.
func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.step(ctx); err != nil && ctx.Err() == nil {
			l.output.complain(err)
			l.unbind()
			pause(ctx, time.Second)
		}
	}
	l.unbind()
	l.rotate()
	l.dropNext()
	l.closing.Wait()
}

func (l *lane) unbind() {
	if l.pull != nil {
		l.pull.Close()
		l.pull = nil
	}
}

// step takes one batch, or looks whether the window is to be rotated. Its errors are the bus's.
func (l *lane) step(ctx context.Context) error {
	l.collect()
	if l.failing && l.window == nil {
		// What was asked for goes back first, so that another process can have it.
		l.unbind()
		if !l.reconnect(ctx) {
			return nil
		}
	}
	if l.pull == nil {
		pull, err := l.output.source(ctx)
		if err != nil {
			return err
		}
		if err := l.output.plausible(ctx); err != nil {
			pull.Close()
			return err
		}
		l.pull = pull
	}
	wait := idleWait
	if l.window != nil {
		wait = busyWait
	}
	msgs, err := l.pull.Next(ctx, pullSize, wait)
	if err != nil {
		return err
	}
	l.output.trouble.Resolve()
	if len(msgs) > 0 {
		if err := l.deliver(ctx, msgs); err != nil {
			return err
		}
	}
	l.review(ctx, len(msgs) > 0)
	return nil
}

// collect learns how the windows ended that were settled meanwhile.
func (l *lane) collect() {
	for {
		select {
		case confirmed := <-l.results:
			l.failing = !confirmed
			if confirmed {
				l.waits.Reset()
			}
		default:
			return
		}
	}
}

// reconnect waits its turn, makes a connection and watches it for a refusal before anything is taken
// from the stream; so while the endpoint is away, no delivery is held hostage by this process.
func (l *lane) reconnect(ctx context.Context) bool {
	if !pause(ctx, l.waits.NextBackOff()) {
		return false
	}
	link, err := l.connection(ctx)
	if err != nil {
		l.refused(err)
		return false
	}
	select {
	case <-link.Gone():
		_, err := link.HalfClose(ctx) // tells why
		_ = link.Close()
		l.refused(fmt.Errorf("the endpoint ended the connection at once: %w", err))
		return false
	case <-time.After(refusalTime):
	case <-ctx.Done():
		_ = link.Close()
		return false
	}
	l.window = newWindow(l.output, link)
	return true
}

func (l *lane) refused(err error) {
	l.failing = true
	if !errors.Is(err, context.Canceled) {
		l.output.fail(err)
	}
}

// deliver judges a batch by the ledger and writes what is to be written.
func (l *lane) deliver(ctx context.Context, msgs []jetstream.Msg) error {
	batch, frames, buffer := l.output.read(ctx, msgs, l.index, &l.envelopes, l.buffer)
	l.buffer = buffer[:0]
	if cap(buffer) > maxKept {
		l.buffer = nil
	}
	if len(batch) == 0 {
		return nil
	}
	l.more = frames[len(frames)-1].more && !l.output.feed.paced()
	_, span := l.output.tracer.Start(l.settle, "send", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(bus.TraceLinks(frames.headers())...),
		trace.WithAttributes(attribute.String("output", l.output.settings.Name), attribute.Int("events", len(batch))))
	defer span.End()
	// A connection first: what cannot be written must not be on record as written.
	if l.window == nil && !l.connect(ctx) {
		telemetry.Fail(span, l.output.reachable())
		l.output.giveBack(batch, time.Second)
		return nil
	}
	verdict, err := l.output.ledger.Begin(l.settle, sequences(batch))
	if err != nil {
		telemetry.Fail(span, err)
		l.output.giveBack(batch, time.Second)
		return err
	}
	faultpoint.Hit(faultpoint.LedgerWritten)
	var settled, send []*delivery
	var sendFrames frameList
	for i, d := range batch {
		if verdict.Confirmed.Contains(d.sequence) {
			settled = append(settled, d)
			continue
		}
		send, sendFrames = append(send, d), append(sendFrames, frames[i])
	}
	l.output.acknowledge(ctx, settled)
	span.SetAttributes(attribute.Int("resent", verdict.Resent.Len()))
	l.output.metrics.resent.Add(ctx, int64(verdict.Resent.Len()), l.output.label)
	for len(send) > 0 {
		if l.window == nil && !l.connect(ctx) {
			telemetry.Fail(span, l.output.reachable())
			l.output.giveBack(send, time.Second)
			return nil
		}
		n := len(send)
		// Asked once for each write: another goroutine may find the endpoint proved again at any moment, and
		// an unproved window may hold more by then than a proved one may.
		unproved := l.output.proof.isUnproved()
		if !unproved {
			if l.window.started >= l.output.settings.RotateEvents {
				l.replace(ctx)
				continue
			}
			n = min(n, l.output.settings.RotateEvents-l.window.started)
		}
		if err := l.window.write(l.settle, l.pack(sendFrames[:n].in(buffer)), send[:n]); err != nil {
			telemetry.Fail(span, err)
			l.lose(err)
			l.output.giveBack(send[n:], 0)
			return nil
		}
		faultpoint.Hit(faultpoint.FramesWritten)
		send, sendFrames = send[n:], sendFrames[n:]
		if !unproved && l.window.started >= l.output.settings.RotateEvents {
			l.replace(ctx)
		}
	}
	return nil
}

// connect opens a window on a connection that is up, or reports the trouble.
func (l *lane) connect(ctx context.Context) bool {
	link, err := l.connection(ctx)
	if err != nil {
		l.refused(err)
		return false
	}
	l.window = newWindow(l.output, link)
	return true
}

// connection is the prepared one, or a new one.
func (l *lane) connection(ctx context.Context) (link, error) {
	if l.next == nil {
		l.prepare(ctx)
	}
	d := l.next
	l.next = nil
	<-d.done // bounded by the dial's own time-out
	if d.err == nil {
		select {
		case <-d.link.Gone():
			// It died while it waited; a fresh one tells whether that is how it goes now.
			_ = d.link.Close()
			return l.output.open(ctx)
		default:
		}
	}
	return d.link, d.err
}

// prepare begins to make the next connection.
func (l *lane) prepare(ctx context.Context) {
	d := &dialing{done: make(chan struct{})}
	l.next = d
	l.closing.Go(func() {
		defer close(d.done)
		d.link, d.err = l.output.open(ctx)
	})
}

func (l *lane) dropNext() {
	if l.next == nil {
		return
	}
	<-l.next.done
	if l.next.link != nil {
		_ = l.next.link.Close()
	}
	l.next = nil
}

// review rotates the window when it is time.
func (l *lane) review(ctx context.Context, traffic bool) {
	w := l.window
	if w == nil {
		return
	}
	select {
	case <-w.link.Gone():
		_, err := w.link.HalfClose(l.settle) // tells why
		l.lose(fmt.Errorf("the connection broke: %w", err))
		return
	default:
	}
	now := time.Now()
	if l.output.proof.isUnproved() {
		l.reviewUnproved(ctx, w, now)
		return
	}
	quiet := now.Sub(w.last)
	switch {
	case len(w.held) == 0:
		if now.Sub(w.opened) >= quietTime {
			l.window = nil
			_ = w.link.Close() // nothing was written on it
			l.dropNext()
			// It stood undisturbed: the endpoint is there.
			l.failing = false
			l.waits.Reset()
			l.output.recover()
		}
	case quiet >= quietTime, !traffic && l.more && quiet >= busyWait:
		// Nothing comes: either there is nothing, or what may be unconfirmed is used up and more waits for
		// this window's confirmation.
		l.rotate()
	case now.Sub(w.first) >= l.output.settings.RotateAfter:
		l.replace(ctx)
	case l.next == nil && w.started >= l.output.settings.RotateEvents/2:
		l.prepare(ctx)
	}
}

func (l *lane) reviewUnproved(ctx context.Context, w *window, now time.Time) {
	if ripe := w.ripe(now); len(ripe) > 0 {
		end := w.trace(l.settle, ripe)
		err := w.confirm(l.settle, ripe)
		end(proto.ProofUnproved, err)
		if err != nil {
			l.output.trouble.Report(err)
			l.output.giveBack(ripe, 0)
		} else {
			l.output.recover()
		}
	}
	idleSince := w.last
	if idleSince.IsZero() {
		idleSince = w.opened
	}
	if now.Sub(w.opened) >= l.output.settings.proof.retrial || (len(w.held) == 0 && now.Sub(idleSince) >= l.output.settings.proof.undisturbed) {
		l.replace(ctx)
	}
}

// replace rotates with the next connection up first.
func (l *lane) replace(ctx context.Context) {
	if l.next == nil {
		l.prepare(ctx)
	}
	select {
	case <-l.next.done:
	case <-ctx.Done():
	}
	l.rotate()
}

// rotate hands the window over to be settled.
func (l *lane) rotate() {
	w := l.window
	l.window = nil
	if w == nil {
		return
	}
	l.closing.Go(func() {
		select {
		case l.results <- w.settle(l.settle):
		default: // far behind with reading results; the next one will do
		}
	})
}

// lose gives a broken window's deliveries back.
func (l *lane) lose(err error) {
	w := l.window
	l.window = nil
	l.failing = true
	w.abandon(l.settle, err)
}
