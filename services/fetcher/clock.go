package fetcher

import (
	"context"
	"math/rand/v2"
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

// sleep waits for d, or without limit if d is 0, and reports whether it did so to the end: until d has
// passed, or for d = 0 until stop closed. A context that ends, or stop closing before d, makes it false.
func sleep(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	if d == 0 {
		select {
		case <-ctx.Done():
			return false
		case <-stop:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	case <-t.C:
		return true
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// jittered spreads d by a tenth to either side.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
