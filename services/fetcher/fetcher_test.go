package fetcher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

func TestFirstStartReadsADayAndKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now()
		w.put("/A/Old", begin.Add(-25*time.Hour))
		w.put("/A/One", begin.Add(-23*time.Hour))
		w.put("/A/Two", begin.Add(-time.Hour))
		r := w.start(t, nil)
		w.settle(30 * time.Second)
		w.with(func() {
			if w.rawHas("/a/old") || w.rawCount("/a/one") != 1 || w.rawCount("/a/two") != 1 {
				t.Errorf("RAW holds %d rows", len(w.raw))
			}
			c := w.checkpoint()
			if !c.LastEventTime.Equal(begin.Add(-time.Hour)) || c.StartTime != nil || c.Generation != 1 {
				t.Errorf("record %+v", c)
			}
			if len(c.LastIDs) != 1 || c.LastIDs[0] != "/a/two" {
				t.Errorf("last_ids %v", c.LastIDs)
			}
			e := w.raw[0]
			if e.Source != testSource || e.Hash != proto.HashIdentity("/A/One") || e.Generation != 1 || e.PullStart.UnixMilli() != e.PullingID || e.Scope != "sub-1" || e.Host != "h" || e.ClaimOnly {
				t.Errorf("envelope %+v", e)
			}
		})
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		for _, line := range []string{
			"Successfully tested fetch for microsoft.iotsecurity/locations/devicegroups/alerts. Source is pullable.",
			"Fetching all iotsecurityresources - microsoft.iotsecurity/locations/devicegroups/alerts records since 1999-12-31T00:00:0",
			"No skip_token returned. All records fetched.",
			"):Number of requests made: 1; Number of events received: 2; Number of duplicated events filtered out: 0; Number of events generated and sent: 2; Average of events per second: ",
			"The data is up to date!",
			"Data collection completed. Elapsed time: 0.00",
		} {
			if r.logs.count(line) == 0 {
				t.Errorf("no line %q", line)
			}
		}
		r.halt(t)
		floor := begin.Add(-24 * time.Hour)
		time.Sleep(10 * time.Hour)
		r = w.start(t, nil)
		w.settle(3 * time.Hour)
		r.halt(t)
		if c := w.checkpoint(); c.Floor.Sub(floor).Abs() > time.Second || c.Generation != 1 {
			t.Errorf("the floor moved: %+v", c)
		}
		w.notBelow(t, w.checkpoint().Floor)
		if n := w.rawCount("/a/one"); n > 2 {
			t.Errorf("published %d times", n)
		}
	})
}

// notBelow fails if a window query reached below floor.
func (w *world) notBelow(t *testing.T, floor time.Time) {
	t.Helper()
	for _, q := range w.queries {
		if from, _ := window(q.Text); !from.IsZero() && from.Before(floor) {
			t.Fatalf("a query reached down to %v, the floor is %v", from, floor)
		}
	}
}

func TestClockAnHourOff(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.skew = skew
				now := w.azureNow()
				w.put("/a", now.Add(-time.Minute))
				w.put("/ahead", now.Add(30*time.Minute)) // a sensor that is ahead
				r := w.start(t, nil)
				w.settle(10 * time.Second)
				position := w.checkpoint().LastEventTime
				if position.After(w.azureNow()) || position.Before(now.Add(-time.Minute)) {
					t.Errorf("position %v, Azure has %v", position, w.azureNow())
				}
				// A row that starts between the present and the one ahead is not passed.
				w.with(func() { w.put("/b", w.azureNow().Add(5*time.Second)) })
				w.settle(2 * time.Minute)
				w.with(func() {
					if !w.rawHas("/b") || !w.rawHas("/ahead") {
						t.Error("a row is missing")
					}
				})
				w.settle(2 * time.Hour)
				if p := w.checkpoint().LastEventTime; !p.Equal(now.Add(30 * time.Minute)) {
					t.Errorf("position %v", p)
				}
				r.halt(t)
			})
		})
	}
}

func TestLateRowsAreFoundByTheLookback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Minute))
		r := w.start(t, func(o *Options) { o.Service.Start = time.Now().Add(-80 * 24 * time.Hour) })
		w.settle(time.Hour)
		w.with(func() {
			w.put("/late", time.Now().Add(-40*time.Hour))
			w.put("/very-late", time.Now().Add(-70*24*time.Hour))
		})
		position := w.checkpoint().LastEventTime
		w.settle(40 * time.Minute)
		if !w.rawHas("/late") || w.rawHas("/very-late") {
			t.Errorf("late %v, very late %v", w.rawHas("/late"), w.rawHas("/very-late"))
		}
		w.settle(25 * time.Hour)
		if !w.rawHas("/very-late") {
			t.Error("the daily sweep missed a row")
		}
		if got := w.checkpoint().LastEventTime; !got.Equal(position) {
			t.Errorf("the position moved to %v", got)
		}
		r.halt(t)
	})
}

// TestStartReadsTheLookbackOnce: what the first pull of a first start has read is not asked for again at once.
func TestStartReadsTheLookbackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Minute))
		start := time.Now().Add(-40 * time.Hour)
		wide := func() (n int) {
			w.with(func() {
				for _, q := range w.queries {
					if from, _ := window(q.Text); !from.IsZero() && from.Sub(start).Abs() < time.Second {
						n++
					}
				}
			})
			return n
		}
		for i, c := range []struct {
			after time.Duration
			want  int
		}{{20 * time.Minute, 1}, {20 * time.Minute, 2}} {
			r := w.start(t, func(o *Options) { o.Service.Start = start })
			w.settle(c.after)
			if n := wide(); n != c.want {
				t.Errorf("start %d: all was read %d times, want %d", i+1, n, c.want)
			}
			r.halt(t)
		}
	})
}

func TestNullStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/n", time.Time{})
		r := w.start(t, nil)
		w.settle(time.Minute)
		if w.rawCount("/n") != 1 || !w.raw[0].EventTime.IsZero() {
			t.Error("the row without a start is missing")
		}
		before := w.checkpoint().LastEventTime
		w.with(func() { w.put("/n2", time.Time{}) })
		w.settle(12 * time.Minute)
		if w.rawCount("/n2") != 1 || w.rawCount("/n") != 1 || !w.checkpoint().LastEventTime.Equal(before) {
			t.Error("second null start")
		}
		r.halt(t)
	})
}

// noise is n bytes that packing makes no shorter.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// Rows without an id are told apart only by what they hold; where a mask makes that equal, each is kept nevertheless,
// and once.
func TestEqualDeadLettersOfDifferentRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 3 {
			key := fmt.Sprintf("/nameless/%d", i)
			w.alerts[key] = &alert{sub: "sub-1", start: time.Now().Add(-time.Minute), raw: fmt.Sprintf(`{"properties":{"n":%d}}`, i)}
		}
		w.put("/twice", time.Now().Add(-time.Minute)).err = errors.New("properties is a list")
		r := w.start(t, func(o *Options) {
			o.Service.Masker = maskFunc(func(dst, _ []byte) ([]byte, error) { return append(dst, `"masked"`...), nil })
		})
		w.settle(time.Hour)
		r.halt(t)
		w.with(func() {
			names := map[string]bool{}
			for _, d := range w.dead {
				names[d.Subject()] = true
			}
			if len(names) != 4 || len(w.dead) != 4 {
				t.Errorf("%d dead letters under %d names, want 4", len(w.dead), len(names))
			}
		})
	})
}

func TestPoisonRowsDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now()
		w.put("/a", now.Add(-3*time.Minute))
		w.put("/poison", now.Add(-2*time.Minute)).err = errors.New("properties is a list")
		w.put("/b", now.Add(-time.Minute))
		w.put("/unmaskable", now.Add(-time.Minute))
		w.put("/huge", now.Add(-time.Minute))
		r := w.start(t, func(o *Options) {
			o.Service.Masker = maskFunc(func(dst, row []byte) ([]byte, error) {
				switch {
				case strings.Contains(string(row), "/unmaskable"):
					panic("mask")
				case strings.Contains(string(row), "/huge"):
					return noise(messageBytes + 1), nil
				}
				return append(dst, `"masked"`...), nil
			})
		})
		w.settle(5 * time.Minute)
		w.with(func() {
			if !w.rawHas("/a") || !w.rawHas("/b") || w.rawHas("/poison") || w.rawHas("/unmaskable") || w.rawHas("/huge") {
				t.Errorf("RAW: %d rows", len(w.raw))
			}
			if len(w.dead) != 3 {
				t.Fatalf("%d dead letters", len(w.dead))
			}
			for _, d := range w.dead {
				if d.Stage != proto.StageFetcher || d.Reason == "" {
					t.Errorf("%+v", d)
				}
				switch d.AlertID {
				case "/poison":
					if string(d.Payload) != `"masked"` || strings.Contains(d.Reason, "properties is a list") {
						t.Errorf("%+v", d)
					}
				case "/unmaskable":
					if d.Payload != nil {
						t.Error("the payload shows what should be masked")
					}
				}
			}
			if !w.checkpoint().LastEventTime.Equal(now.Add(-time.Minute)) {
				t.Error("the position did not move on")
			}
			for _, e := range w.raw {
				if string(e.Row) != `"masked"` {
					t.Errorf("row %s", e.Row)
				}
			}
		})
		r.halt(t)
	})
}

func TestPagesAreAcknowledgedBeforeThePositionMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-20 * time.Hour)
		w.putMany(2500, begin, time.Second)
		batches := 0
		w.publish = func([]bus.Message) error {
			if batches++; batches >= 2 {
				return errors.New("simulated: no answer")
			}
			return nil
		}
		r := w.start(t, nil)
		w.settle(10 * time.Minute)
		w.with(func() {
			if got, want := w.checkpoint().LastEventTime, begin.Add(999*time.Second); !got.Equal(want) {
				t.Errorf("position %v, want %v: the end of the one page that was acknowledged", got, want)
			}
			if n := r.logs.count("ERROR The pull failed"); n != 1 {
				t.Errorf("%d lines for one failure", n)
			}
			w.publish = nil
		})
		w.settle(2 * time.Minute)
		w.with(func() {
			if len(w.raw) != 2500 || !w.checkpoint().LastEventTime.Equal(begin.Add(2499*time.Second)) {
				t.Errorf("%d rows, position %v", len(w.raw), w.checkpoint().LastEventTime)
			}
		})
		if r.logs.count("(Partial) Statistics") == 0 || r.logs.count("the pull succeeded again failures=") != 1 {
			t.Error("partial statistics or recovery missing")
		}
		r.halt(t)
	})
}

func TestFullStreamIsBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Hour))
		w.full = true
		r := w.start(t, nil)
		w.settle(time.Hour)
		w.with(func() {
			if len(w.raw) != 0 || !w.checkpoint().LastEventTime.Equal(w.checkpoint().Floor) {
				t.Error("something moved")
			}
			if n := r.logs.count("is full until later stages have caught up"); n != 1 {
				t.Errorf("%d lines", n)
			}
			w.full = false
		})
		w.settle(10 * time.Second)
		w.with(func() {
			if w.rawCount("/a") != 1 {
				t.Error("not published after the stream had room")
			}
			w.full = true
			w.put("/b", time.Now())
		})
		w.settle(2 * time.Minute)
		r.halt(t) // also while it waits
	})
}

func TestFailedPullWaitsAsLongAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		w.settle(30 * time.Second)
		var at []time.Time
		w.with(func() {
			w.onPage = func(resourcegraph.Query, int) error {
				at = append(at, time.Now())
				return fault.RetryAfter(fault.API(429, "Error during API call to %s", "x"), 5*time.Minute)
			}
		})
		w.settle(12 * time.Minute)
		w.with(func() {
			var gaps []time.Duration
			for i := 1; i < len(at); i++ {
				gaps = append(gaps, at[i].Sub(at[i-1]))
			}
			// The null-start query fails too, on its own schedule.
			if len(at) > 6 {
				t.Errorf("queries with gaps %v", gaps)
			}
			w.onPage = nil
			w.put("/a", time.Now())
		})
		w.settle(6 * time.Minute)
		if !w.rawHas("/a") {
			t.Error("no recovery")
		}
		r.halt(t)
	})
}
