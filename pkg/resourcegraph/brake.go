package resourcegraph

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The quota of Resource Graph: each principal may send 15 queries, pages among them, in every 5 s
// ("Guidance for throttled requests in Azure Resource Graph").
const (
	quotaRequests = 15
	quotaWindow   = 5 * time.Second
)

const (
	headerRemaining   = "X-Ms-User-Quota-Remaining"
	headerResetsAfter = "X-Ms-User-Quota-Resets-After"
	headerRetryMillis = "Retry-After-Ms"
)

const (
	// arrival is how long after its last byte was written a request may reach the far end's counter
	// at the latest. Counting from the answer instead would need no such figure and prove the bound
	// for any network, but cost every slot the server's whole working time: at 500 ms a page that
	// is a tenth of the quota.
	arrival = 200 * time.Millisecond
	// maxBlocked is how long a caller is held by what the answers said. Longer waits are errors that
	// carry the time, so that the stage knows.
	maxBlocked = 15 * time.Second
	// maxReset bounds what a header may ask for.
	maxReset = time.Hour
)

// Quota is what is known of the principal's request quota.
type Quota struct {
	// Remaining is what the last answer said, -1 if none said anything yet.
	Remaining int
	// ResetsAfter is how long until the quota is full again, by the last answer; 0 if that is past.
	ResetsAfter time.Duration
	// Throttled counts the answers 429 since the client was made.
	Throttled int64
}

// brake keeps the client inside its share of the quota. Two things hold a request back:
//
// The slots. Of its own requests at most share x 15 are, at any moment, possibly inside the server's
// last 5 s. A request takes a slot and gives it back 5 s after the latest moment at which the server can
// have counted it. That holds for a window that slides as well as for a fixed one of unknown phase, and
// it reaches the full 15 per 5 s, which a token bucket does not: with a burst of b it lets b requests
// too many into some window, and with none it wastes what a slow page leaves over.
//
//	waiting ──> taken ──written──> counting ──min(answer, written+200ms)+5s──> free
//	              └──failed before it was written─────────────────────────────^
//
// The answers. If one reports less left than our own requests explain, somebody else uses the quota too
// (another tool of the principal, a process before this one). From there until the reported reset the
// brake leaves the others the rest of the quota, (1-share) x 15. While our own requests explain the
// figure, the reset time decides nothing: it has whole seconds, and to wait for it could cost a fifth
// of the quota.
//
// Safe for concurrent use; all callers share it. Waiting callers are not served in order.
type brake struct {
	whole   int // our slots while the share is not divided
	reserve int // what is left to others

	mu        sync.Mutex
	limit     int           // our slots
	stretch   int           // in so many windows
	good      time.Time     // limit and stretch hold until then, for ever if zero
	slots     []*slot       // at most limit, except after a division
	changed   chan struct{} // closed when a slot's end becomes known
	taken     uint64        // slots ever taken
	others    bool          // the last answer showed other users
	credit    int           // with others: what we believe is left
	resetsAt  time.Time
	blocked   time.Time // no request before this
	remaining int
	throttled int64
	throttles bool // the last answer was a 429
}

// slot is one request that the server may be counting.
type slot struct {
	order   uint64    // the value of brake.taken when it was taken
	own     int       // our slots in use at that moment, this one included
	written time.Time // zero: not yet
	ends    time.Time // zero: unknown
	over    bool      // answered or failed
}

func newBrake(share float64) *brake {
	// The small addend keeps 0.6 x 15 at 9 whatever the binary fraction makes of it.
	limit := min(max(int(math.Floor(share*quotaRequests+1e-9)), 1), quotaRequests)
	return &brake{whole: limit, limit: limit, stretch: 1, reserve: quotaRequests - limit, changed: make(chan struct{}), remaining: -1}
}

// blockedError says that no request makes sense before a time that is further off than a call waits.
type blockedError struct{ wait time.Duration }

func (e *blockedError) Error() string {
	return fmt.Sprintf("the request quota is used up, next try in %s", e.wait.Round(time.Second))
}

// NonRetriable keeps the SDK from trying again by its own backoff.
func (e *blockedError) NonRetriable() {}

// take waits for a slot. It returns a *blockedError if the wait is longer than maxBlocked, or the
// context's error.
func (b *brake) take(ctx context.Context) (*slot, error) {
	for {
		b.mu.Lock()
		now := time.Now()
		until, err := b.next(now)
		if err != nil {
			b.mu.Unlock()
			return nil, err
		}
		outdated := !b.good.IsZero() && !b.good.After(now)
		if outdated {
			until = time.Time{} // until the next division
		} else if until.IsZero() && len(b.slots) < b.limit {
			b.taken++
			s := &slot{order: b.taken, own: len(b.slots) + 1}
			b.slots = append(b.slots, s)
			b.credit--
			b.mu.Unlock()
			return s, nil
		}
		changed := b.changed
		b.mu.Unlock()

		if err := wait(ctx, until, now, changed); err != nil {
			return nil, err
		}
	}
}

// next drops the slots that are over and returns when to look again: zero means now, if a slot is free,
// else when something changes.
func (b *brake) next(now time.Time) (time.Time, error) {
	kept := b.slots[:0]
	var first time.Time
	for _, s := range b.slots {
		if !s.ends.IsZero() && !s.ends.After(now) {
			continue
		}
		kept = append(kept, s)
		if !s.ends.IsZero() && (first.IsZero() || s.ends.Before(first)) {
			first = s.ends
		}
	}
	clear(b.slots[len(kept):])
	b.slots = kept

	until := b.blocked
	if b.others && b.credit <= b.reserve && b.resetsAt.After(until) {
		until = b.resetsAt
	}
	if d := until.Sub(now); d > maxBlocked {
		return time.Time{}, &blockedError{d}
	} else if d > 0 {
		return until, nil
	}
	if b.others && !b.resetsAt.After(now) {
		b.others = false
	}
	if len(b.slots) < b.limit {
		return time.Time{}, nil
	}
	return first, nil
}

// wait returns at the time until, unless it is zero, or when changed closes.
func wait(ctx context.Context, until, now time.Time, changed <-chan struct{}) error {
	var at <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(until.Sub(now))
		defer timer.Stop()
		at = timer.C
	}
	select {
	case <-at:
	case <-changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// wrote notes that the request of s has left.
func (b *brake) wrote(s *slot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.written = time.Now()
	s.ends = s.written.Add(arrival + b.window())
	b.signal()
}

// done notes the end of the request of s: its answer, or nil if there was none. It returns how long
// the answer asks to wait (429 only) and whether this is the first 429 in a row.
func (b *brake) done(s *slot, resp *http.Response) (delay time.Duration, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.signal()
	now := time.Now()
	s.over = true
	if s.written.IsZero() && resp == nil {
		s.ends = now // it never left
		return 0, false
	}
	if end := now.Add(b.window()); s.ends.IsZero() || end.Before(s.ends) {
		s.ends = end
	}
	if resp == nil {
		return 0, false
	}
	if resp.StatusCode == http.StatusOK && resp.Header.Get(headerRemaining) == "" {
		// Every answer that the service counts carries the quota's headers; this one was not counted, so
		// its slot is free at once. Should something on the way strip them, a 429 still brakes.
		s.ends = now
	}
	b.learn(s, resp.Header, now)
	if resp.StatusCode != http.StatusTooManyRequests {
		b.throttles = false
		return 0, false
	}
	b.throttled++
	first, b.throttles = !b.throttles, true
	delay, ok := retryDelay(resp.Header, now)
	if !ok {
		delay = time.Second
	}
	if until := now.Add(delay); until.After(b.blocked) {
		b.blocked = until
	}
	return delay, first
}

// learn takes the quota headers of the answer to s.
func (b *brake) learn(s *slot, h http.Header, now time.Time) {
	left, err := strconv.Atoi(h.Get(headerRemaining))
	if err != nil || left < 0 {
		return
	}
	b.remaining = left
	reset, ok := parseReset(h.Get(headerResetsAfter), left == 0)
	if !ok {
		return
	}
	b.resetsAt = now.Add(reset)
	// The server has counted of ours at most the slots that were in use when s was taken and those
	// taken since. If less is left than that explains, there are others.
	own := s.own + int(b.taken-s.order)
	b.others = left < quotaRequests-own
	b.credit = left
	for _, x := range b.slots {
		if !x.over { // perhaps not in the figure yet
			b.credit--
		}
	}
}

// window is how long a slot is in use after the server has counted its request.
func (b *brake) window() time.Duration { return time.Duration(b.stretch) * quotaWindow }

func (b *brake) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *brake) quota() Quota {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Quota{Remaining: b.remaining, ResetsAfter: max(time.Until(b.resetsAt), 0), Throttled: b.throttled}
}

// retryDelay returns the wait that a 429 or a 5xx asks for, by Retry-After-Ms, Retry-After (seconds or
// a date, RFC 9110 section 10.2.3) or else the quota's reset.
func retryDelay(h http.Header, now time.Time) (time.Duration, bool) {
	for _, name := range []string{headerRetryMillis, "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.Atoi(h.Get(name)); err == nil && ms > 0 {
			return min(time.Duration(ms), maxReset/time.Millisecond) * time.Millisecond, true
		}
	}
	after := h.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil && s > 0 {
		return min(time.Duration(s), maxReset/time.Second) * time.Second, true
	}
	if t, err := http.ParseTime(after); err == nil && t.After(now) {
		return min(t.Sub(now), maxReset), true
	}
	if d, ok := parseReset(h.Get(headerResetsAfter), true); ok && d > 0 {
		return d, true
	}
	return 0, false
}

// parseReset reads hh:mm:ss, with .NET's fraction if there is one. In whole seconds it is not known
// whether the service rounded down; a caller with nothing left adds the second that may be missing.
func parseReset(s string, up bool) (time.Duration, bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return 0, false
	}
	h, err1 := strconv.ParseUint(parts[0], 10, 16)
	m, err2 := strconv.ParseUint(parts[1], 10, 16)
	sec, err3 := strconv.ParseFloat(parts[2], 64)
	if err1 != nil || err2 != nil || err3 != nil || !(sec >= 0 && sec < 1e6) {
		return 0, false
	}
	d := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec*float64(time.Second))
	if up && !strings.Contains(parts[2], ".") {
		d += time.Second
	}
	return min(d, maxReset), true
}
