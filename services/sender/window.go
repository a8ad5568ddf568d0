package sender

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// maxWindow bounds the events of one connection: half of what may be unconfirmed at an output, so that
// one window can be filled while another is being confirmed.
const maxWindow = 2500

// window is one connection and the deliveries written on it. While it is open only its lane uses it,
// afterwards only the goroutine that settles it.
type window struct {
	output  *output
	link    link
	held    []*delivery
	opened  time.Time
	first   time.Time   // first write that is not confirmed
	last    time.Time   // last write
	started int         // deliveries ever written on it
	proof   proto.Proof // what a confirmation of it rests on
}

func newWindow(o *output, l link) *window {
	return &window{output: o, link: l, opened: time.Now(), proof: proto.ProofHalfClose}
}

// write writes p, the frames of batch. The link counts every byte, those of TLS among them, so only the
// offset behind the whole write is known; it stands for each frame's own, later than true and never earlier.
func (w *window) write(ctx context.Context, p []byte, batch []*delivery) error {
	began := time.Now()
	end, err := w.link.Write(ctx, p)
	now := time.Now()
	w.output.tally.wrote(len(batch), now.Sub(began))
	for _, d := range batch {
		d.end, d.written = end, now
	}
	if len(w.held) == 0 {
		w.first = now
	}
	w.held = append(w.held, batch...)
	w.started += len(batch)
	w.last = now
	return err
}

// settle half-closes the window's connection and brings every delivery on it to its end: confirmed and
// acknowledged, or given back. It reports which.
func (w *window) settle(ctx context.Context) (confirmed bool) {
	defer w.link.Close() //nolint:errcheck // nothing depends on how the socket closes
	end := w.trace(ctx, w.held)
	err := w.prove(ctx)
	if err == nil {
		w.output.ledger.Count(proto.Counters{Rotations: 1}) // stored with the confirmation
		err = w.confirm(ctx, w.held)
	}
	end(w.proof, err)
	if err == nil {
		w.output.recover()
		w.output.metrics.rotations.Add(ctx, 1, w.output.label)
		return true
	}
	w.abandon(ctx, err)
	return false
}

// prove returns nil when everything written on the connection counts as delivered.
func (w *window) prove(ctx context.Context) error {
	answer, cancel := context.WithTimeout(ctx, w.output.settings.proof.answer)
	proof, err := w.link.HalfClose(answer)
	cancel()
	if proof.Delivered() {
		return w.answered(ctx, proof)
	}
	kernel, ok := w.link.(kernelLink)
	if proof != devo.Unanswered || !ok || ctx.Err() != nil {
		return fmt.Errorf("connection not confirmed (%s): %w", proof, err)
	}
	if !w.acknowledged(kernel) {
		// The endpoint has not even taken the bytes: it is slow, which says nothing about its manners.
		return w.outwait(ctx, kernel)
	}
	return w.unanswered(ctx, kernel)
}

// answered is what becomes of a connection whose half-close was answered.
func (w *window) answered(ctx context.Context, proof devo.Proof) error {
	w.output.metrics.answers.Add(ctx, 1, w.output.label, metric.WithAttributes(attribute.String("proof", proof.String())))
	if err := w.output.manners.judge(ctx, proof, w.opened); err != nil {
		return err
	}
	w.output.proof.answered(ctx)
	return nil
}

// outwait gives a slow endpoint as long as it keeps taking bytes.
func (w *window) outwait(ctx context.Context, kernel kernelLink) error {
	for {
		before, _ := kernel.Acked()
		answer, cancel := context.WithTimeout(ctx, w.output.settings.proof.answer)
		proof, err := kernel.Await(answer)
		cancel()
		if proof.Delivered() {
			return w.answered(ctx, proof)
		}
		after, _ := kernel.Acked()
		switch {
		case proof != devo.Unanswered || ctx.Err() != nil:
			return fmt.Errorf("connection not confirmed (%s): %w", proof, err)
		case after > before:
			continue // it takes bytes; give it time
		case w.acknowledged(kernel):
			return w.unanswered(ctx, kernel)
		}
		return fmt.Errorf("the endpoint stopped taking bytes: %w", err)
	}
}

// unanswered is what becomes of a connection whose bytes are all acknowledged and whose half-close is not
// answered.
func (w *window) unanswered(ctx context.Context, kernel kernelLink) error {
	if !w.output.proof.noAnswer(ctx) {
		return fmt.Errorf("the endpoint left the half-close unanswered for %v", w.output.settings.proof.answer)
	}
	return w.undisturbed(ctx, kernel)
}

// undisturbed waits until the connection has been quiet for a minute since the last write, as an
// unproved output confirms.
func (w *window) undisturbed(ctx context.Context, kernel kernelLink) error {
	wait, cancel := context.WithDeadline(ctx, w.last.Add(w.output.settings.proof.undisturbed))
	defer cancel()
	proof, err := kernel.Await(wait)
	switch {
	case proof.Delivered():
		return w.answered(ctx, proof)
	case proof == devo.Unanswered && ctx.Err() == nil && kernel.Undisturbed() && w.acknowledged(kernel):
		w.proof = proto.ProofUnproved
		return nil
	}
	return fmt.Errorf("connection not confirmed (%s): %w", proof, err)
}

func (w *window) acknowledged(kernel kernelLink) bool {
	if len(w.held) == 0 {
		return true
	}
	acked, ok := kernel.Acked()
	return ok && acked >= w.held[len(w.held)-1].end
}

// ripe takes out of an open window of an unproved output what counts as confirmed by now.
func (w *window) ripe(now time.Time) []*delivery {
	kernel, ok := w.link.(kernelLink)
	if !ok || !kernel.Undisturbed() {
		return nil
	}
	acked, ok := kernel.Acked()
	n := 0
	for ok && n < len(w.held) && w.held[n].end <= acked && now.Sub(w.held[n].written) >= w.output.settings.proof.undisturbed {
		n++
	}
	out := w.held[:n:n]
	w.held = w.held[n:]
	if len(w.held) > 0 {
		w.first = w.held[0].written
	}
	return out
}

// trace begins the span of ds's confirmation, linked to the pages that they came in; end ends it.
func (w *window) trace(ctx context.Context, ds []*delivery) (end func(proto.Proof, error)) {
	var headers []nats.Header
	if len(ds) > 0 && len(ds[0].msg.Headers()[proto.HeaderTraceparent]) > 0 {
		for _, d := range ds {
			headers = append(headers, d.msg.Headers())
		}
	}
	_, span := w.output.tracer.Start(ctx, "confirm", trace.WithNewRoot(), trace.WithLinks(bus.TraceLinks(headers)...),
		trace.WithAttributes(attribute.String("output", w.output.settings.Name), attribute.Int("events", len(ds))))
	return func(proof proto.Proof, err error) {
		if err == nil {
			span.SetAttributes(attribute.String("proof", string(proof)))
		}
		telemetry.Fail(span, err)
		span.End()
	}
}

// confirm stores the confirmation in the ledger and only then acknowledges.
func (w *window) confirm(ctx context.Context, ds []*delivery) error {
	if len(ds) == 0 {
		return nil
	}
	if err := w.output.ledger.Confirm(ctx, sequences(ds)); err != nil {
		return err
	}
	faultpoint.Hit(faultpoint.LedgerConfirmed)
	w.output.acknowledge(ctx, ds)
	faultpoint.Hit(faultpoint.OutputSettled)
	now := time.Now()
	bytes := 0
	for _, d := range ds {
		bytes += d.size
		if !d.event.IsZero() && w.output.feed.job == nil {
			w.output.metrics.latency.Record(ctx, max(0, now.Sub(d.event).Seconds()), w.output.label)
		}
	}
	w.output.tally.confirmed(len(ds), int64(bytes))
	counter := w.output.metrics.confirmed
	if w.output.feed.job != nil {
		counter = w.output.metrics.replayed
	}
	counter.Add(ctx, int64(len(ds)), w.output.label)
	return nil
}

// abandon gives everything on the connection back; it will be sent again and counted as possibly resent.
func (w *window) abandon(ctx context.Context, err error) {
	_ = w.link.Close()
	w.output.ledger.Count(proto.Counters{Unclean: 1})
	w.output.metrics.unclean.Add(ctx, 1, w.output.label)
	w.output.giveBack(w.held, 0)
	if ctx.Err() == nil {
		w.output.fail(err)
	}
}

// doubtful are the alerts that may have been sent before from a message that was lost. What a job sends is a repeat anyway.
func (l *lane) doubtful(batch []*delivery) (seqs []uint64) {
	for _, d := range batch {
		if l.output.feed.job == nil && len(d.msg.Headers()[proto.HeaderAgain]) > 0 {
			seqs = append(seqs, d.sequence)
		}
	}
	return seqs
}

// acknowledge settles deliveries that the ledger holds as confirmed. An acknowledgement that is lost only
// means that the ledger answers for it once more.
func (o *output) acknowledge(_ context.Context, ds []*delivery) {
	for _, d := range ds {
		_ = d.msg.Ack()
	}
	o.inflight.drop(ds)
}

// giveBack returns deliveries to the stream, to come again after delay.
func (o *output) giveBack(ds []*delivery, delay time.Duration) {
	// Forgotten first: the copy that comes again must not be taken for a repeat of one in hand.
	o.inflight.drop(ds)
	for _, d := range ds {
		if delay > 0 {
			_ = d.msg.NakWithDelay(delay)
		} else {
			_ = d.msg.Nak()
		}
	}
}

func sequences(ds []*delivery) []uint64 {
	out := make([]uint64, len(ds))
	for i, d := range ds {
		out[i] = d.sequence
	}
	return out
}
