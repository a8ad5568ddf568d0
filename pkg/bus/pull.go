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
)

// Pull takes messages from a durable consumer in batches. The server never has more outstanding for it
// than it asked for, so nothing ages in a client buffer unseen: every message that was asked for comes out
// of Next, or goes back by Close. It is not safe for concurrent use; use one for each worker.
type Pull struct {
	consumer jetstream.Consumer
	current  jetstream.MessageBatch // nil: no request is outstanding
	cancel   context.CancelFunc     // ends the outstanding request
}

// Pull binds to a provisioned consumer.
func (b *Bus) Pull(ctx context.Context, stream, consumer string) (*Pull, error) {
	c, err := b.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return nil, fmt.Errorf("bind to consumer %s of %s: %w", consumer, stream, err)
	}
	return &Pull{consumer: c}, nil
}

// Next returns at least one and at most n messages: n as long as the stream holds more, else what there
// is within 2 ms; an empty batch when none came within wait. Errors are ctx's or the connection's; call Next
// again after a pause. A request that Next left behind keeps delivering into the next call, so n should
// not shrink from call to call by more than the caller can hold.
func (p *Pull) Next(ctx context.Context, n int, wait time.Duration) ([]jetstream.Msg, error) {
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
				return p.gather(append(make([]jetstream.Msg, 0, n), m), n), nil
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
			batch = append(batch, m)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// benign are the ends of a request that carry no news.
func benign(err error) bool {
	return errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded)
}

// Close gives back what was asked for and not taken, so that another replica gets it at once.
func (p *Pull) Close() {
	if p.current == nil {
		return
	}
	p.cancel()
	for m := range p.current.Messages() {
		_ = m.Nak() // if it is lost, the acknowledgement wait gives the message back
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
	p.current, p.cancel = batch, cancel
	return nil
}

func (p *Pull) end() {
	p.cancel()
	p.current, p.cancel = nil, nil
}
