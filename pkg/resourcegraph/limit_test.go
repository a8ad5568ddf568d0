package resourcegraph

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"defenderiot/pkg/fault"
)

// most is the largest number of moments within any stretch of the length.
func most(at []time.Time, length time.Duration) int {
	n, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= length {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}

// However requests come, no stretch of a limit's period holds more than it allows, and nobody waits longer than
// the limits demand, but for the thousandth by which entries are rounded.
func TestLimitsHoldInEveryStretch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all [][]Limit
		var l levels
		for range rapid.IntRange(1, 3).Draw(t, "levels") {
			var limits []Limit
			for range rapid.IntRange(0, 2).Draw(t, "limits") {
				limits = append(limits, Limit{
					Period:   time.Duration(rapid.IntRange(1, 5000).Draw(t, "period")) * time.Millisecond,
					Requests: rapid.IntRange(-1, 40).Draw(t, "requests"),
				})
			}
			l, all = append(l, NewLimiter(limits...)), append(all, limits)
		}
		now, taken := time.Unix(0, 0), []time.Time(nil)
		for range 300 {
			now = now.Add(time.Duration(rapid.IntRange(0, 200_000).Draw(t, "pause")) * time.Microsecond)
			wait := l.next(now, true)
			if wait > 0 {
				forced := false
				for _, limits := range all {
					for _, limit := range limits {
						n := 0
						for _, at := range taken {
							if now.Add(wait-limit.Period/steps-1).Sub(at) < limit.Period {
								n++
							}
						}
						forced = forced || limit.Requests > 0 && n >= limit.Requests
					}
				}
				if !forced {
					t.Fatalf("a wait of %v that no limit demands", wait)
				}
				now = now.Add(wait)
				if wait := l.next(now, true); wait > 0 {
					t.Fatalf("another %v after the wait", wait)
				}
			}
			taken = append(taken, now)
		}
		for _, limits := range all {
			for _, limit := range limits {
				if n := most(taken, limit.Period); limit.Requests > 0 && n > limit.Requests {
					t.Fatalf("%d requests in %v, allowed are %d", n, limit.Period, limit.Requests)
				}
			}
		}
	})
}

func TestALimitsMemoryIsBounded(t *testing.T) {
	s := &stretch{limit: Limit{Period: time.Hour, Requests: 9_999_999}}
	now := time.Unix(0, 0)
	for range 200_000 {
		now = now.Add(rand.N(100 * time.Millisecond))
		if s.next(now) > 0 {
			t.Fatal("held back")
		}
		s.count(now)
		if len(s.entries) > steps+2 {
			t.Fatalf("%d entries", len(s.entries))
		}
	}
}

// locked makes a transport safe for concurrent use.
type locked struct {
	mu   sync.Mutex
	next http.RoundTripper
}

func (l *locked) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next.RoundTrip(r)
}

// Clients that share a limiter keep it together, repeats of a request among what is counted.
func TestClientsKeepTheirLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		shared := NewLimiter(Limit{time.Minute, 40})
		q := &replies{list: []*http.Response{reply(503, "busy"), reply(200, `{"data":[]}`)}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var all sync.WaitGroup
		for range 2 {
			c, err := newClient(Settings{QuotaShare: 1, Logger: logger, Limits: []*Limiter{shared, NewLimiter(Limit{10 * time.Second, 5}), nil}},
				hooks{transport: &locked{next: q}, credential: anyToken{}})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				all.Go(func() {
					for ctx.Err() == nil {
						_, err := c.Page(ctx, Query{})
						d, waits := fault.Delay(err)
						switch {
						case err == nil || ctx.Err() != nil:
						case errors.Is(err, ErrLimited) && waits && d > 0:
							time.Sleep(d)
						default:
							t.Errorf("got %v", err)
							return
						}
					}
				})
			}
		}
		all.Wait()
		if n := most(q.asked, time.Minute); n != 40 {
			t.Errorf("%d requests in a minute, want 40", n)
		}
		if n := most(q.asked, 10*time.Second); n != 10 {
			t.Errorf("%d requests of two clients in 10 s, want 5 of each", n)
		}
		text := log.String()
		if !strings.Contains(text, `level=INFO msg="Local rate limit is blocking new calls for `) {
			t.Errorf("no line:\n%s", text)
		}
		if n := strings.Count(text, "\n"); n > len(q.asked) {
			t.Errorf("%d lines for %d requests", n, len(q.asked))
		}
	})
}

// Waits below a second are said at level debug, with five decimals.
func TestShortLocalWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c, err := newClient(Settings{QuotaShare: 1, Limits: []*Limiter{NewLimiter(Limit{500 * time.Millisecond, 1})},
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))},
			hooks{transport: &replies{list: []*http.Response{reply(200, `{"data":[]}`)}}, credential: anyToken{}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := c.Page(t.Context(), Query{}); err != nil {
				t.Fatal(err)
			}
		}
		if text := log.String(); !strings.Contains(text, `level=DEBUG msg="Local rate limit is blocking new calls for 0.50000 seconds"`) || strings.Count(text, "\n") != 1 {
			t.Errorf("logged:\n%s", text)
		}
	})
}
