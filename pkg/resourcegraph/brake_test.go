package resourcegraph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/fault"
)

// quotaServer is Resource Graph's quota as a transport: 15 requests in a window that is fixed (phase
// unknown to the client) or slides, headers included. It runs on synctest's clock.
type quotaServer struct {
	sliding bool
	whole   bool          // resets-after in whole seconds, rounded down, instead of 100 ns
	work    time.Duration // from a request's arrival to its answer
	wire    time.Duration // at most, each way

	mu       sync.Mutex
	epoch    time.Time
	arrivals []time.Time // ours and others'
	served   int
	refused  int
}

func (q *quotaServer) count(now time.Time) (int, time.Duration) {
	begin := now.Add(-quotaWindow)
	if !q.sliding {
		begin = now.Add(-(now.Sub(q.epoch) % quotaWindow))
	}
	n, first := 0, now
	for _, a := range q.arrivals {
		if a.After(begin) || !q.sliding && a.Equal(begin) {
			if n == 0 {
				first = a
			}
			n++
		}
	}
	if q.sliding {
		return n, first.Add(quotaWindow).Sub(now)
	}
	return n, begin.Add(quotaWindow).Sub(now)
}

// spend is another user's request.
func (q *quotaServer) spend(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range n {
		q.arrivals = append(q.arrivals, time.Now())
	}
}

func (q *quotaServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	time.Sleep(rand.N(q.wire + 1))
	q.mu.Lock()
	now := time.Now()
	used, _ := q.count(now)
	refuse := used >= quotaRequests
	if refuse {
		q.refused++
	} else {
		q.arrivals = append(q.arrivals, now)
		q.served++
	}
	used, reset := q.count(now)
	q.mu.Unlock()
	time.Sleep(q.work + rand.N(q.wire+1))

	h := http.Header{}
	h.Set(headerRemaining, fmt.Sprint(quotaRequests-used))
	seconds := fmt.Sprintf("%010.7f", reset.Seconds())
	if q.whole {
		seconds = fmt.Sprintf("%02d", int(reset.Seconds()))
	}
	h.Set(headerResetsAfter, "00:00:"+seconds)
	status, body := http.StatusOK, `{"count":0,"data":[]}`
	if refuse {
		status, body = http.StatusTooManyRequests, `{"error":{"code":"RateLimiting"}}`
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// load has callers ask for pages for a while and returns how many each 5 s brought.
func load(t *testing.T, q *quotaServer, share float64, callers int, length time.Duration) float64 {
	t.Helper()
	c, err := newClient(Settings{QuotaShare: share}, hooks{transport: q, credential: anyToken{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Page(ctx, Query{Text: "q"}); err != nil && ctx.Err() == nil {
					t.Errorf("page: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(q.served) / (length.Seconds() / quotaWindow.Seconds())
}

// Alone on the quota, the client uses at least 95 % of its share and never sees a 429, whatever the
// window, the network, the number of callers and the header's precision.
func TestBrakeUsesItsShareWithoutA429(t *testing.T) {
	for _, tc := range []struct {
		share   float64
		callers int
		work    time.Duration
		wire    time.Duration
		want    float64
	}{
		{1, 1, 50 * time.Millisecond, 10 * time.Millisecond, 15},
		{1, 1, 0, 0, 15},
		{1, 1, 250 * time.Millisecond, 50 * time.Millisecond, 15},
		{1, 8, 50 * time.Millisecond, 10 * time.Millisecond, 15},
		{1, 4, 600 * time.Millisecond, 80 * time.Millisecond, 15},
		{1, 40, 2 * time.Second, 100 * time.Millisecond, 15},
		{0.6, 1, 50 * time.Millisecond, 10 * time.Millisecond, 9},
		{0.6, 6, 400 * time.Millisecond, 100 * time.Millisecond, 9},
		{0.05, 2, 50 * time.Millisecond, 10 * time.Millisecond, 1},
	} {
		for _, sliding := range []bool{false, true} {
			for _, whole := range []bool{false, true} {
				t.Run(fmt.Sprintf("share %v, %d callers, %v, sliding %v, whole seconds %v", tc.share, tc.callers, tc.work, sliding, whole), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						q := &quotaServer{sliding: sliding, whole: whole, work: tc.work, wire: tc.wire, epoch: time.Now().Add(-1700 * time.Millisecond)}
						got := load(t, q, tc.share, tc.callers, 10*time.Minute)
						if q.refused > 0 {
							t.Errorf("%d times 429", q.refused)
						}
						if got < 0.95*tc.want || got > tc.want*1.02 {
							t.Errorf("%.2f requests per 5 s, want 95 %% of %v", got, tc.want)
						}
					})
				})
			}
		}
	}
}

// With others on the quota, the client leaves them what its share does not cover.
func TestBrakeLeavesOthersTheirPart(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			q := &quotaServer{sliding: sliding, work: 30 * time.Millisecond, epoch: time.Now()}
			done := make(chan struct{})
			lost := 0
			go func() {
				defer close(done)
				for range 600 { // one a second, five in 5 s: theirs by right
					time.Sleep(time.Second)
					q.mu.Lock()
					used, _ := q.count(time.Now())
					q.mu.Unlock()
					if used >= quotaRequests {
						lost++
					}
					q.spend(1)
				}
			}()
			got := load(t, q, 0.6, 3, 10*time.Minute)
			<-done
			if q.refused > 0 || lost > 0 {
				t.Errorf("sliding %v: %d times 429 for us, %d for others", sliding, q.refused, lost)
			}
			if got < 3 || got > 9.1 {
				t.Errorf("sliding %v: %.1f requests per 5 s", sliding, got)
			}
		})
	}
}

// What others use goes off the client's part first: with a share below 1 it stops while the rest is
// still there for them, with 1 it takes what is left.
func TestBrakeStopsAtTheReserve(t *testing.T) {
	for share, want := range map[float64]float64{0.6: 4, 1: 10} {
		synctest.Test(t, func(t *testing.T) {
			q := &quotaServer{work: 30 * time.Millisecond, epoch: time.Now()}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 60 {
					q.spend(5)
					time.Sleep(quotaWindow)
				}
			}()
			got := load(t, q, share, 1, 5*time.Minute)
			<-done
			if q.refused > 0 || got < want-0.5 || got > want+0.5 {
				t.Errorf("share %v: %.2f requests per 5 s, want %v; %d times 429", share, got, want, q.refused)
			}
		})
	}
}

// Requests that are still under way count against what an answer says is left.
func TestBrakeCountsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake(1)
		var taken []*slot
		for range 3 {
			s, err := b.take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.wrote(s)
			taken = append(taken, s)
		}
		b.done(taken[0], reply(200, "", headerRemaining, "3", headerResetsAfter, "00:00:04"))
		begin := time.Now()
		for i, want := range []time.Duration{0, 4 * time.Second} {
			if _, err := b.take(t.Context()); err != nil || time.Since(begin) != want {
				t.Errorf("request %d after %v, want %v (%v)", i, time.Since(begin), want, err)
			}
		}
	})
}

// A client that starts where another process used the quota up notices by the first answer.
func TestBrakeAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quotaServer{work: 20 * time.Millisecond, epoch: time.Now()}
		q.spend(14)
		load(t, q, 1, 1, 30*time.Second)
		if q.refused > 0 {
			t.Errorf("%d times 429", q.refused)
		}
	})
}

// replies gives its answers in turn, the last one for ever.
type replies struct {
	list  []*http.Response
	asked []time.Time
}

func (r *replies) RoundTrip(req *http.Request) (*http.Response, error) {
	next := r.list[min(len(r.asked), len(r.list)-1)]
	r.asked = append(r.asked, time.Now())
	c := *next
	c.Header, c.Request = next.Header.Clone(), req
	body, _ := next.Body.(interface{ String() string })
	c.Body = io.NopCloser(strings.NewReader(body.String()))
	return &c, nil
}

type replyBody struct{ *strings.Builder }

func (replyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (replyBody) Close() error             { return nil }

func reply(status int, body string, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	b := &strings.Builder{}
	b.WriteString(body)
	return &http.Response{StatusCode: status, Header: h, Body: replyBody{b}}
}

func TestThrottled(t *testing.T) {
	const limited = `{"error":{"code":"RateLimiting","message":"m correlationId = ab-12.","details":[{"code":"RateLimiting"}]}}`
	ok := reply(200, `{"data":[]}`)
	for name, tc := range map[string]struct {
		list  []*http.Response
		tries int
		waits time.Duration // between the tries
		delay time.Duration // what the error carries; 0: no error
	}{
		"quota headers, then good": {[]*http.Response{reply(429, limited, headerRemaining, "0", headerResetsAfter, "00:00:03"), ok}, 2, 4 * time.Second, 0},
		"precise quota headers":    {[]*http.Response{reply(429, limited, headerRemaining, "0", headerResetsAfter, "00:00:03.5000000"), ok}, 2, 3500 * time.Millisecond, 0},
		"retry-after, then good":   {[]*http.Response{reply(429, `""`, "Retry-After", "2"), ok}, 2, 2 * time.Second, 0},
		"milliseconds":             {[]*http.Response{reply(429, `""`, "Retry-After-Ms", "700"), ok}, 2, 700 * time.Millisecond, 0},
		"three tries":              {[]*http.Response{reply(429, limited, "Retry-After", "5")}, 3, 10 * time.Second, 5 * time.Second},
		"nothing said":             {[]*http.Response{reply(429, `""`)}, 3, 2 * time.Second, time.Second},
		"longer than a minute":     {[]*http.Response{reply(429, limited, "Retry-After", "61")}, 1, 0, 61 * time.Second},
		"longer than an hour":      {[]*http.Response{reply(429, limited, "Retry-After", "999999999999")}, 1, 0, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &replies{list: tc.list}
				c, err := newClient(Settings{QuotaShare: 1}, hooks{transport: r, credential: anyToken{}})
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.Page(t.Context(), Query{})
				if len(r.asked) != tc.tries || r.asked[len(r.asked)-1].Sub(r.asked[0]) != tc.waits {
					t.Errorf("asked at %v", r.asked)
				}
				var named *fault.Error
				if delay, _ := fault.Delay(err); delay != tc.delay || (err == nil) != (tc.delay == 0) {
					t.Fatalf("%v with delay %v", err, delay)
				} else if err != nil && (!errors.As(err, &named) || named.Type != fault.TypeAPI || named.Code != 429 || named.Hint == "") {
					t.Errorf("%#v", err)
				}
				if q := c.Quota(); err != nil && q.Throttled != int64(tc.tries) {
					t.Errorf("%+v", q)
				}
				if tc.delay > maxBlocked { // the next caller is told at once, then it is over
					_, err = c.Page(t.Context(), Query{})
					if delay, _ := fault.Delay(err); delay != tc.delay || len(r.asked) != tc.tries {
						t.Errorf("%v with delay %v after %d requests", err, delay, len(r.asked))
					}
					time.Sleep(tc.delay)
					_, _ = c.Page(t.Context(), Query{})
					if len(r.asked) != tc.tries+1 {
						t.Errorf("%d requests after the wait", len(r.asked))
					}
				}
			})
		})
	}
}

// A caller that waits for the quota stops waiting with its context, and a request that never left
// costs no slot.
func TestBrakeWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake(0.05)
		s, err := b.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		b.done(s, nil)
		if _, err := b.take(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestParseReset(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"00:00:03": 3 * time.Second, "00:01:05": 65 * time.Second, "00:00:04.2500000": 4250 * time.Millisecond,
		"00:00:00": 0, "99:00:00": time.Hour,
		"": -1, "3": -1, "a:b:c": -1, "00:00:-3": -1, "00:00:NaN": -1, "00:00:1e300": -1, "-1:00:00": -1, "1:2:3:4": -1,
	} {
		got, ok := parseReset(in, false)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
	if got, _ := parseReset("00:00:03", true); got != 4*time.Second {
		t.Errorf("rounded up: %v", got)
	}
}
