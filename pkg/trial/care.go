package trial

import (
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// firstMessages is how many messages a new process takes with care. It is more than may be unconfirmed at a
	// time, twice over, because the server may also have forgotten acknowledgements.
	firstMessages = 32_000
	// firstTime is how long after its start a new process takes what is new with care, too: an alert that ends the
	// process is published again by each pull until it is put aside, and the first copy of it is delivered again only
	// after the acknowledgement wait.
	firstTime = 30 * time.Second
)

// Care says which deliveries of one consumer are to be tried first. It is safe for concurrent use.
//
// The server counts deliveries, but where it died together with the service (the embedded one always does) it may
// have forgotten the last ones. So a new process also takes the first messages with care.
type Care struct {
	until time.Time // of storing
	left  atomic.Int64
}

// NewCare is for a process that begins to take messages now.
func NewCare() *Care {
	c := &Care{until: time.Now().Add(firstTime)}
	c.left.Store(firstMessages)
	return c
}

// Needed reports whether a delivery may have ended a process before.
func (c *Care) Needed(meta *jetstream.MsgMetadata) bool {
	if meta.NumDelivered > 1 {
		return true
	}
	return meta.Timestamp.Before(c.until) && c.left.Load() > 0 && c.left.Add(-1) >= 0
}
