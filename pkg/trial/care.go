package trial

import (
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// firstTime is how long after the start what is stored can still be a copy of what ended the process before: the
// fetcher, which has died with it, reads the same rows again.
const firstTime = 30 * time.Second

// Care says which deliveries of one consumer are to be tried first. It is safe for concurrent use.
//
// Those are the ones that were delivered before. The server counts deliveries, but where it died together with the
// service, as the embedded one does, it may have forgotten the last ones. Only then first deliveries count, too.
type Care struct {
	first int64
	until time.Time // of storing
	left  atomic.Int64
}

// NewCare is for a process that begins to take messages now. first bounds how many first deliveries are tried, and
// is what can have been in hand when the server died; 0 where it has not died, or was stopped in order.
func NewCare(first int64) *Care {
	c := &Care{first: first, until: time.Now().Add(firstTime)}
	c.left.Store(first)
	return c
}

// Another is for one more consumer, which the process has found later.
func (c *Care) Another() *Care {
	if time.Now().After(c.until) {
		return NewCare(0)
	}
	return NewCare(c.first)
}

// Needed reports whether a delivery may have ended a process before.
func (c *Care) Needed(meta *jetstream.MsgMetadata) bool {
	if meta.NumDelivered > 1 {
		return true
	}
	return c.left.Load() > 0 && meta.Timestamp.Before(c.until) && c.left.Add(-1) >= 0
}

// Delay is how long a message waits for its next trial that this one could not judge: longer each time, at most
// five minutes.
func Delay(deliveries uint64) time.Duration {
	return min(5*time.Minute, 5*time.Second<<min(deliveries, 10))
}
