package fetcher

import (
	"sync"
	"time"
)

// remoteClock is the time in Azure: the Date of its newest answer plus what has passed here since, by
// the monotonic clock. Until the first answer it is this machine's wall clock. It is safe for concurrent
// use.
type remoteClock struct {
	wall func() time.Time

	mu   sync.Mutex
	date time.Time
	at   time.Time
}

// observe takes an answer's Date (RFC 9110, 6.6.1; whole seconds); the zero time is ignored.
func (c *remoteClock) observe(date time.Time) {
	if date.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.at = date, time.Now()
}

// now is Azure's time, off by up to a second and the time that the answer took.
func (c *remoteClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return c.wall().UTC()
	}
	return c.date.Add(time.Since(c.at)).UTC()
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tick is the resolution of times in Resource Graph.
const tick = 100 * time.Nanosecond

// ceilTick rounds up to a tick, so that the query's rounding down cannot reach below t.
func ceilTick(t time.Time) time.Time {
	down := t.Truncate(tick)
	if down.Before(t) {
		return down.Add(tick)
	}
	return down
}
