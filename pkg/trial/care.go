package trial

import (
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// firstMessages is how many old messages a new process takes with care. It is more than may be unconfirmed at a
// time, twice over, because the server may also have forgotten acknowledgements.
const firstMessages = 32_000

// Care says which deliveries of one consumer are to be tried first. It is safe for concurrent use.
//
// The server counts deliveries, but where it died together with the service (the embedded one always does) it may
// have forgotten the last ones. So a new process also takes the first messages with care that were there before
// it.
type Care struct {
	since time.Time
	left  atomic.Int64
}

// NewCare is for a process that begins to take messages now.
func NewCare() *Care {
	c := &Care{since: time.Now()}
	c.left.Store(firstMessages)
	return c
}

// Needed reports whether a delivery may have ended a process before.
func (c *Care) Needed(meta *jetstream.MsgMetadata) bool {
	if meta.NumDelivered > 1 {
		return true
	}
	return meta.Timestamp.Before(c.since) && c.left.Load() > 0 && c.left.Add(-1) >= 0
}
