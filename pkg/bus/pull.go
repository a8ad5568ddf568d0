package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullExpiry bounds one request on the server; a lost one is noticed by its heartbeats much earlier.
	pullExpiry    = 5 * time.Second
	pullHeartbeat = time.Second
	// maxPullBytes bounds what one request brings, whatever n says; it is more than the largest message,
	// which could never be had otherwise.
	maxPullBytes = maxMessage + 8<<20
	// linger is how long a batch waits for the next message when its last one said that nothing more was
	// waiting: a single alert is not held up.
	linger = 2 * time.Millisecond
	// patience is the same when more was waiting: the server is on its way with it, and every batch costs
	// the same few disk writes whatever its size.
	patience = 50 * time.Millisecond
	// maxAge is how long what the server sent between two calls may be kept for the later one. Nobody renews it
	// meanwhile, so an older one may be in somebody else's hands already; then a nak would have the server
	// give it to a third (nats-server v2.15, consumer.go, processNak), so it is only forgotten.
	maxAge = AckWait / 3
	// unsubscribed is when the client has surely left the inbox of a request that was ended: it does so a moment
	// later, and until then the server would send what is given back to nobody there.
	unsubscribed = 100 * time.Millisecond
)

// Pull takes messages from a durable consumer in batches. While a caller works on a full batch and the stream
// holds more, the next one is on its way; beyond that the server has nothing outstanding for it that Next did
// not ask for. Nothing ages in a client buffer unseen: every message comes out of Next within a third of
// [AckWait], goes back by Close, or is left to be delivered again. It is not safe for concurrent use; use one
// for each worker.
type Pull struct {
	consumer jetstream.Consumer
	bus      *Bus
	subject  string                 // of its requests
	current  jetstream.MessageBatch // nil: no request is outstanding
	cancel   context.CancelFunc     // ends the outstanding request
	left     int                    // messages that it may still bring
	returned time.Time              // when the last Next returned
}

// Pull binds to a provisioned consumer.
func (b *Bus) Pull(ctx context.Context, stream, consumer string) (*Pull, error) {
	c, err := b.Consumer(ctx, stream, consumer)
	if err != nil {
		return nil, fmt.Errorf("bind to consumer %s of %s: %w", consumer, stream, err)
	}
	return &Pull{consumer: c, bus: b, subject: apiPrefix + "CONSUMER.MSG.NEXT." + stream + "." + consumer}, nil
}

// Next returns at least one and at most n messages: n as long as the stream holds more, else what there
// is within 2 ms; an empty batch when none came within wait. Errors are ctx's or the connection's; call Next
// again after a pause. A request that Next left behind or made ahead keeps delivering into the next call, so n
// should not shrink from call to call by more than the caller can hold.
func (p *Pull) Next(ctx context.Context, n int, wait time.Duration) (_ []jetstream.Msg, err error) {
	ctx, explain := p.bus.guard(ctx, p.subject)
	defer func() {
		if err = explain(err); errors.Is(err, ErrRefused) && p.current != nil {
			p.end()
		}
	}()
	if p.current != nil && p.stale() {
		p.discard(func(jetstream.Msg) {})
	}
	defer func() { p.returned = time.Now() }()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		if p.current == nil {
			if err := p.request(n); err != nil {
				return nil, err
			}
		}
		select {
		case m, open := <-p.current.Messages():
			if open {
				p.left--
				batch := p.gather(append(make([]jetstream.Msg, 0, n), m), n)
				p.prefetch(batch, n)
				return batch, nil
			}
			err := p.current.Error()
			p.end()
			if err != nil && !benign(err) {
				return nil, fmt.Errorf("pull: %w", err)
			}
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *Pull) gather(batch []jetstream.Msg, n int) []jetstream.Msg {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(batch) < n {
		select {
		case m, open := <-p.current.Messages():
			if !open {
				p.end()
				return batch
			}
			p.left--
			batch = append(batch, m)
			continue
		default:
		}
		// Nothing is there right now.
		wait := linger
		if meta, err := batch[len(batch)-1].Metadata(); err == nil && meta.NumPending > 0 {
			wait = patience
		}
		timer.Reset(wait)
		select {
		case m, open := <-p.current.Messages():
			if !open {
				p.end()
				return batch
			}
			p.left--
			batch = append(batch, m)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// prefetch asks for the next batch behind a full one that is not the last. A failure is the next Next's.
func (p *Pull) prefetch(batch []jetstream.Msg, n int) {
	if len(batch) < n || p.left > 0 {
		return
	}
	if meta, err := batch[n-1].Metadata(); err != nil || meta.NumPending == 0 {
		return
	}
	if p.current != nil {
		p.end()
	}
	_ = p.request(n)
}

// stale reports whether what came since the last Next may be too old to be taken.
func (p *Pull) stale() bool { return time.Since(p.returned) > maxAge }

// benign are the ends of a request that carry no news.
func benign(err error) bool {
	return errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded)
}

// Close gives back what was asked for and not taken, so that another replica gets it at once. Next may be
// called again.
func (p *Pull) Close() {
	if p.current == nil {
		return
	}
	// If a nak is lost, the acknowledgement wait gives the message back.
	settle := func(m jetstream.Msg) { _ = m.NakWithDelay(unsubscribed) }
	if p.stale() {
		settle = func(jetstream.Msg) {}
	}
	p.discard(settle)
}

// discard ends the outstanding request and settles what it had brought.
func (p *Pull) discard(settle func(jetstream.Msg)) {
	p.cancel()
	for m := range p.current.Messages() {
		settle(m)
	}
	p.end()
}

func (p *Pull) request(n int) error {
	// Not the caller's context: a request outlives the call, and ends with Close or its expiry.
	ctx, cancel := context.WithTimeout(context.Background(), pullExpiry)
	batch, err := p.consumer.Fetch(n, jetstream.FetchContext(ctx), jetstream.FetchHeartbeat(pullHeartbeat), jetstream.FetchMaxBytes(maxPullBytes))
	if err != nil {
		cancel()
		return fmt.Errorf("pull: %w", err)
	}
	p.current, p.cancel, p.left = batch, cancel, n
	return nil
}

func (p *Pull) end() {
	p.cancel()
	p.current, p.cancel = nil, nil
}
