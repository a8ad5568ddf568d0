package resourcegraph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ErrLimited says that the caller's own limits allow no request for longer than a call waits. The error carries the wait
// (fault.Delay). Nothing has failed: wait and ask again.
var ErrLimited = errors.New("the configured limits allow no request yet")

// Limit allows at most Requests requests in any stretch of Period.
type Limit struct {
	Period time.Duration
	// Requests of zero or less is no limit.
	Requests int
}

// Limiter keeps a set of limits, all of which hold. Clients may share one: it counts the requests of all of them. It
// remembers as long as the process lives, so a restart begins with empty windows. Safe for concurrent use; nil limits nothing.
//
// The windows slide; a token bucket would let up to twice the number into some of them.
type Limiter struct {
	mu        sync.Mutex
	stretches []*stretch
}

// NewLimiter makes a Limiter, or returns nil if none of limits limits anything.
func NewLimiter(limits ...Limit) *Limiter {
	var l Limiter
	for _, limit := range limits {
		if limit.Requests > 0 && limit.Period > 0 {
			l.stretches = append(l.stretches, &stretch{limit: limit})
		}
	}
	if len(l.stretches) == 0 {
		return nil
	}
	return &l
}

// stretch is one limit and counts requests in entries of a fraction of its period, so that it holds about steps of them however many
// requests it allows. A request counts until its entry's last one is a period old: never too short, at most a
// period/steps too long.
type stretch struct {
	limit   Limit
	entries []entry // in order of time
	total   int
}

type entry struct {
	first, last time.Time
	n           int
}

// steps bounds a limit's memory to 1,000 entries or so.
const steps = 1000

// next returns how long after now the limit allows a request.
func (s *stretch) next(now time.Time) time.Duration {
	gone := 0
	for gone < len(s.entries) && now.Sub(s.entries[gone].last) >= s.limit.Period {
		s.total -= s.entries[gone].n
		gone++
	}
	s.entries = s.entries[gone:]
	over := s.total - s.limit.Requests + 1
	for _, e := range s.entries {
		if over <= 0 {
			break
		}
		if over -= e.n; over <= 0 {
			return s.limit.Period - now.Sub(e.last)
		}
	}
	return 0
}

func (s *stretch) count(now time.Time) {
	s.total++
	if n := len(s.entries); n > 0 && now.Sub(s.entries[n-1].first) < s.limit.Period/steps {
		s.entries[n-1].last = now
		s.entries[n-1].n++
		return
	}
	s.entries = append(s.entries, entry{now, now, 1})
}

// levels are the limiters of one client, always in the same order, outermost first.
type levels []*Limiter

// next returns how long after now all levels allow a request; with take, and if that is zero, the request is counted
// at all of them.
func (l levels) next(now time.Time, take bool) (wait time.Duration) {
	for _, limiter := range l {
		if limiter == nil {
			continue
		}
		limiter.mu.Lock()
		defer limiter.mu.Unlock() // together at the end: a request is counted at all levels or at none
		for _, s := range limiter.stretches {
			wait = max(wait, s.next(now))
		}
	}
	if !take || wait > 0 {
		return wait
	}
	for _, limiter := range l {
		if limiter == nil {
			continue
		}
		for _, s := range limiter.stretches {
			s.count(now)
		}
	}
	return 0
}

// limitedError is ErrLimited on its way through the SDK.
type limitedError struct{ wait time.Duration }

func (e *limitedError) Error() string {
	return fmt.Sprintf("%v, next in %s", ErrLimited, e.wait.Round(time.Second))
}

// NonRetriable keeps the SDK from trying again by its own backoff.
func (e *limitedError) NonRetriable() {}

// limits holds requests back by levels and says so.
type limits struct {
	levels levels
	log    *slog.Logger

	mu    sync.Mutex
	until time.Time // the end of the wait last logged
}

// wait returns when a request is allowed, *limitedError if that is longer than a call waits, or the context's error.
func (l *limits) wait(ctx context.Context) error {
	for {
		now := time.Now()
		d := l.levels.next(now, false)
		if d <= 0 {
			return nil
		}
		l.say(ctx, now, d)
		if end, ok := ctx.Deadline(); d > maxBlocked || ok && now.Add(d).After(end) {
			return &limitedError{d}
		}
		if err := wait(ctx, now.Add(d), now, nil); err != nil {
			return err
		}
	}
}

// say logs the known line, once for all callers that wait for the same moment.
func (l *limits) say(ctx context.Context, now time.Time, d time.Duration) {
	until := now.Add(d)
	l.mu.Lock()
	known := until.Sub(l.until).Abs() < time.Millisecond
	l.until = until
	l.mu.Unlock()
	if known {
		return
	}
	level := slog.LevelInfo
	if d < time.Second {
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, fmt.Sprintf("Local rate limit is blocking new calls for %.5f seconds", d.Seconds()))
}

// take counts a request, unless another caller was faster.
func (l *limits) take() bool { return l.levels.next(time.Now(), true) == 0 }
