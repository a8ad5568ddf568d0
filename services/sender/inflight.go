package sender

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
)

// delivery is one message of UNIQUE in this process's hands.
type delivery struct {
	sequence uint64
	msg      jetstream.Msg
	lane     int
	size     int       // of its frame
	event    time.Time // start of the alert; zero if it has none
	end      int64     // the link's offset behind its frame
	written  time.Time
	taken    time.Time
}

// inflight is every delivery that this process holds for an output. It renews them, so that a slow
// endpoint does not hand them to another process, and it recognises one that comes a second time while
// the first is still in hand. It is safe for concurrent use.
type inflight struct {
	mu   sync.Mutex
	held map[uint64]*delivery
}

func newInflight() *inflight { return &inflight{held: map[uint64]*delivery{}} }

// take registers a delivery; it reports false when its sequence is in hand already, and then the copy is
// to be ignored: the acknowledgement of the first one settles both.
func (f *inflight) take(d *delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.held[d.sequence]; ok {
		return false
	}
	f.held[d.sequence] = d
	return true
}

// drop forgets deliveries, before they are acknowledged or given back.
func (f *inflight) drop(ds []*delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		delete(f.held, d.sequence)
	}
}

// len counts the deliveries in hand.
func (f *inflight) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// byLane counts them for each of n lanes.
func (f *inflight) byLane(n int) []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]int64, n)
	for _, d := range f.held {
		out[d.lane]++
	}
	return out
}

// renew tells the server every third of the acknowledgement wait that the deliveries are in work.
func (f *inflight) renew(ctx context.Context) {
	const period = bus.AckWait / 3
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, d := range f.older(period) {
				_ = d.msg.InProgress()
			}
		case <-ctx.Done():
			return
		}
	}
}

// older leaves out what was taken just now: most deliveries are confirmed before their first renewal.
func (f *inflight) older(age time.Duration) []*delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := time.Now().Add(-age / 2)
	var out []*delivery
	for _, d := range f.held {
		if d.taken.Before(limit) {
			out = append(out, d)
		}
	}
	return out
}
