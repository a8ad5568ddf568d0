package fetcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// settle lets d pass in the bubble's time.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestFirstStartReadsADayAndKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now()
		w.put("/A/Old", begin.Add(-25*time.Hour))
		w.put("/A/One", begin.Add(-23*time.Hour))
		w.put("/A/Two", begin.Add(-time.Hour))
		r := w.start(t, nil)
		settle(30 * time.Second)
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
		settle(3 * time.Hour)
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

func TestChangedStartTimeOpensAGeneration(t *testing.T) {
	at := func(d time.Duration) func(*Options) {
		return func(o *Options) { o.Service.Start = time.Now().Add(d) }
	}
	for name, tc := range map[string]struct {
		first, second func(*Options)
		want          uint64
		sent          int // copies of the alert that is a day old
	}{
		"same instant in another zone": {
			func(o *Options) { o.Service.Start = time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC) },
			func(o *Options) {
				o.Service.Start = time.Date(1999, 12, 1, 2, 0, 0, 0, time.FixedZone("x", 7200))
			}, 1, 1},
		"changed": {at(-72 * time.Hour), at(-96 * time.Hour), 2, 2},
		"removed": {at(-72 * time.Hour), nil, 2, 2},
		"set":     {nil, at(-72 * time.Hour), 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put("/a", time.Now().Add(-23*time.Hour))
				r := w.start(t, tc.first)
				settle(time.Minute)
				r.halt(t)
				w.dedup()
				r = w.start(t, tc.second)
				settle(time.Minute)
				c := w.checkpoint()
				if c.Generation != tc.want || w.rawCount("/a") != tc.sent {
					t.Errorf("generation %d with %d copies", c.Generation, w.rawCount("/a"))
				}
				if tc.want == 2 {
					if len(c.Replaced) != 1 || c.Replaced[0].Generation != 1 {
						t.Errorf("replaced: %+v", c.Replaced)
					}
					if r.logs.count("Some changes have been detected and the persistence needs to be updated. Previous content: {") != 1 {
						t.Error("the change was not logged")
					}
					settle(26 * time.Hour)
					w.with(func() {
						if len(w.purged) != 1 || !strings.HasSuffix(w.purged[0], ".1.>") || len(w.checkpoint().Replaced) != 0 {
							t.Errorf("purged %v, replaced %v", w.purged, w.checkpoint().Replaced)
						}
					})
				}
				r.halt(t)
			})
		})
	}
}

func TestStartTimeInTheFuture(t *testing.T) {
	_, err := New(Options{Source: testSource, Graph: &process{}, Bus: &process{}, Service: Service{Period: time.Second, Start: time.Now().Add(time.Hour)}})
	var named *fault.Error
	if !errors.As(err, &named) || named.Type != fault.TypeInitVariables || named.Code != 2 {
		t.Errorf("got %v", err)
	}
}

func TestDamagedOrNewerRecordIsLeftAlone(t *testing.T) {
	for name, value := range map[string]string{
		"corrupt": `{"@persistence_version": 1, "last_ev`,
		"newer":   `{"@persistence_version": 99, "generation": 1, "last_event_time_in_utc": "2023-10-01T00:00:00Z"}`,
		"empty":   `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put("/a", time.Now().Add(-time.Hour))
				w.revision = 7
				w.keys[proto.RecordKey(testSource)] = &entry{value: []byte(value), revision: 7}
				r := w.start(t, nil)
				settle(10 * time.Minute)
				if got := string(w.keys[proto.RecordKey(testSource)].value); got != value || len(w.raw) != 0 {
					t.Errorf("record %s, %d rows", got, len(w.raw))
				}
				if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "PrePullError") {
					t.Errorf("ready: %v", err)
				}
				if n := r.logs.count("the position cannot be read"); n != 1 || r.logs.count("hint=") == 0 {
					t.Errorf("logged %d times", n)
				}
				r.halt(t)
			})
		})
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
				settle(10 * time.Second)
				position := w.checkpoint().LastEventTime
				if position.After(w.azureNow()) || position.Before(now.Add(-time.Minute)) {
					t.Errorf("position %v, Azure has %v", position, w.azureNow())
				}
				// A row that starts between the present and the one ahead is not passed.
				w.with(func() { w.put("/b", w.azureNow().Add(5*time.Second)) })
				settle(2 * time.Minute)
				w.with(func() {
					if !w.rawHas("/b") || !w.rawHas("/ahead") {
						t.Error("a row is missing")
					}
				})
				settle(2 * time.Hour)
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
		settle(time.Hour)
		w.with(func() {
			w.put("/late", time.Now().Add(-40*time.Hour))
			w.put("/very-late", time.Now().Add(-70*24*time.Hour))
		})
		position := w.checkpoint().LastEventTime
		settle(40 * time.Minute)
		if !w.rawHas("/late") || w.rawHas("/very-late") {
			t.Errorf("late %v, very late %v", w.rawHas("/late"), w.rawHas("/very-late"))
		}
		settle(25 * time.Hour)
		if !w.rawHas("/very-late") {
			t.Error("the daily sweep missed a row")
		}
		if got := w.checkpoint().LastEventTime; !got.Equal(position) {
			t.Errorf("the position moved to %v", got)
		}
		r.halt(t)
	})
}

func TestNullStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/n", time.Time{})
		r := w.start(t, nil)
		settle(time.Minute)
		if w.rawCount("/n") != 1 || !w.raw[0].EventTime.IsZero() {
			t.Error("the row without a start is missing")
		}
		before := w.checkpoint().LastEventTime
		w.with(func() { w.put("/n2", time.Time{}) })
		settle(12 * time.Minute)
		if w.rawCount("/n2") != 1 || w.rawCount("/n") != 1 || !w.checkpoint().LastEventTime.Equal(before) {
			t.Error("second null start")
		}
		r.halt(t)
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
			o.Service.Mask = func(row []byte) ([]byte, error) {
				switch {
				case strings.Contains(string(row), "/unmaskable"):
					panic("mask")
				case strings.Contains(string(row), "/huge"):
					return make([]byte, messageBytes+1), nil
				}
				return []byte(`"masked"`), nil
			}
		})
		settle(5 * time.Minute)
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
					if string(d.Payload) != `"masked"` || !strings.Contains(d.Reason, "properties is a list") {
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
		settle(10 * time.Minute)
		w.with(func() {
			if got, want := w.checkpoint().LastEventTime, begin.Add(999*time.Second); !got.Equal(want) {
				t.Errorf("position %v, want %v: the end of the one page that was acknowledged", got, want)
			}
			if n := r.logs.count("ERROR The pull failed"); n != 1 {
				t.Errorf("%d lines for one failure", n)
			}
			w.publish = nil
		})
		settle(2 * time.Minute)
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
		settle(time.Hour)
		w.with(func() {
			if len(w.raw) != 0 || !w.checkpoint().LastEventTime.Equal(w.checkpoint().Floor) {
				t.Error("something moved")
			}
			if n := r.logs.count("is full until later stages have caught up"); n != 1 {
				t.Errorf("%d lines", n)
			}
			w.full = false
		})
		settle(10 * time.Second)
		w.with(func() {
			if w.rawCount("/a") != 1 {
				t.Error("not published after the stream had room")
			}
			w.full = true
			w.put("/b", time.Now())
		})
		settle(2 * time.Minute)
		r.halt(t) // also while it waits
	})
}

func TestShortWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-10 * time.Hour).Truncate(time.Second)
		w.putMany(50, begin, 10*time.Minute)
		w.hidden["/bulk/00020"] = true
		r := w.start(t, nil)
		settle(5 * time.Minute)
		w.with(func() {
			if len(w.raw) != 49 {
				t.Errorf("%d rows", len(w.raw))
			}
			c := w.checkpoint()
			if len(c.Rescan) != 1 {
				t.Fatalf("rescan %+v", c.Rescan)
			}
			at := begin.Add(200 * time.Minute)
			if from, to := c.Rescan[0].From, c.Rescan[0].To; from.After(at) || !to.After(at) || to.Sub(from) > leastWindow {
				t.Errorf("the window %v to %v does not isolate %v", from, to, at)
			}
			if !c.LastEventTime.Equal(begin.Add(490 * time.Minute)) {
				t.Error("the pull did not go on")
			}
			if n := r.logs.count("ERROR Resource Graph returns fewer rows than it counts"); n != 1 {
				t.Errorf("%d alarms", n)
			}
			delete(w.hidden, "/bulk/00020")
		})
		settle(40 * time.Minute)
		w.with(func() {
			if len(w.checkpoint().Rescan) != 0 || !w.rawHas("/bulk/00020") {
				t.Error("the window was not read again")
			}
		})
		r.halt(t)
	})
}

func TestTruncatedAnswersAreBoundedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-10*time.Hour))
		w.truncated = true
		r := w.start(t, nil)
		settle(50 * time.Second)
		w.with(func() {
			if n := len(w.queries); n > 2*repairScans+200 {
				t.Errorf("%d queries for one pull", n)
			}
			if len(w.checkpoint().Rescan) == 0 || len(w.checkpoint().Rescan) > maxRescan || !w.rawHas("/a") {
				t.Errorf("%d windows", len(w.checkpoint().Rescan))
			}
			w.truncated = false
		})
		settle(time.Hour)
		if n := len(w.checkpoint().Rescan); n != 0 {
			t.Errorf("%d windows stay on the list", n)
		}
		r.halt(t)
	})
}

func TestDeletionBetweenPagesDoesNotHideARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-10 * time.Hour)
		w.putMany(1500, begin, time.Second)
		w.onPage = func(_ resourcegraph.Query, offset int) error {
			if offset == 1000 {
				delete(w.alerts, "/bulk/00003") // row 1000 slips in front of the page boundary
				w.onPage = nil
			}
			return nil
		}
		w.onRecord = func(c *proto.Checkpoint) {
			if c.LastEventTime.After(begin.Add(1000*time.Second)) && !w.rawHas("/bulk/01000") {
				t.Error("the position passed a row that slipped past the page boundary")
			}
		}
		r := w.start(t, nil)
		settle(30 * time.Second)
		w.with(func() {
			if !w.rawHas("/bulk/01000") || len(w.raw) != 1500 {
				t.Errorf("%d rows", len(w.raw))
			}
		})
		r.halt(t)
	})
}

func TestPayloadTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-10 * time.Hour)
		w.putMany(600, begin, time.Minute/2)
		for _, a := range w.alerts {
			a.size = 100
		}
		w.pageLimit = 10_000
		r := w.start(t, nil)
		settle(40 * time.Second)
		w.with(func() {
			if len(w.raw) != 600 {
				t.Errorf("%d rows", len(w.raw))
			}
			w.alerts["/bulk/00300"].size = 20_000 // larger than an answer may be, alone
			w.forget()
		})
		r.halt(t)
		r = w.start(t, func(o *Options) { o.Service.Start = begin.Add(-time.Hour) })
		settle(10 * time.Minute)
		w.with(func() {
			if len(w.raw) != 599 || len(w.checkpoint().Rescan) == 0 {
				t.Errorf("%d rows, rescan %v", len(w.raw), w.checkpoint().Rescan)
			}
		})
		r.halt(t)
	})
}

func TestPageSizeGrowsAgain(t *testing.T) {
	z := pageSize{top: 1000}
	for range 12 {
		z.tooLarge(z.get())
	}
	if z.get() != 1 {
		t.Fatalf("top %d", z.get())
	}
	for range 10 * growAfter {
		z.succeeded(z.get())
	}
	if z.get() != 1000 {
		t.Errorf("top %d", z.get())
	}
}

func TestRejectedTokenRestartsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.putMany(2500, time.Now().Add(-10*time.Hour), time.Second)
		rejected := 0
		w.onPage = func(_ resourcegraph.Query, offset int) error {
			if offset == 2000 && rejected < 2 {
				rejected++
				return fmt.Errorf("simulated: %w", resourcegraph.ErrTokenRejected)
			}
			return nil
		}
		r := w.start(t, nil)
		settle(30 * time.Second)
		w.with(func() {
			if len(w.raw) != 2500 {
				t.Errorf("%d rows", len(w.raw))
			}
			if r.logs.count("The pull failed") != 0 {
				t.Error("the pull failed")
			}
		})
		r.halt(t)
	})
}

func TestFailedPullWaitsAsLongAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		settle(30 * time.Second)
		var at []time.Time
		w.with(func() {
			w.onPage = func(resourcegraph.Query, int) error {
				at = append(at, time.Now())
				return fault.RetryAfter(fault.API(429, "Error during API call to %s", "x"), 5*time.Minute)
			}
		})
		settle(12 * time.Minute)
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
		settle(6 * time.Minute)
		if !w.rawHas("/a") {
			t.Error("no recovery")
		}
		r.halt(t)
	})
}

func TestSetupIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Minute))
		w.onPage = func(resourcegraph.Query, int) error {
			return fault.API(403, "Error during API call to x").WithHint("grant it")
		}
		r := w.start(t, func(o *Options) { o.Service.Endpoint = "https://management.azure.com" })
		settle(10 * time.Minute)
		w.with(func() {
			if n := len(w.queries); n < 3 || n > 5 {
				t.Errorf("%d tries in ten minutes", n)
			}
			if n := r.logs.count("SetupError [CODE:0102] reason: Failed to fetch data from https://management.azure.com. Source is not pullable."); n != 1 {
				t.Errorf("%d lines", n)
			}
			if r.logs.count("hint=grant it") != 1 {
				t.Error("no hint")
			}
			w.onPage = nil
		})
		if err := r.Ready(); err == nil {
			t.Error("ready without a set-up")
		}
		settle(40 * time.Minute)
		if !w.rawHas("/a") || r.Ready() != nil {
			t.Error("no recovery")
		}
		r.halt(t)
	})
}

func TestSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now()
		w.put("/a", now.Add(-time.Minute))
		w.put("/other", now.Add(-20*24*time.Hour)).sub = "sub-2"
		r := w.start(t, func(o *Options) {
			o.Service.Subscriptions = []string{"SUB-1", "sub-2"}
			o.Service.Start = now.Add(-30 * 24 * time.Hour)
		})
		settle(10 * time.Minute)
		w.with(func() {
			if !w.rawHas("/a") || w.rawHas("/other") {
				t.Error("scope")
			}
			w.readable = []string{"sub-1", "sub-2"}
		})
		if r.logs.count("unreadable=sub-2") != 1 {
			t.Error("no warning about sub-2")
		}
		settle(70 * time.Minute)
		w.with(func() {
			if !w.rawHas("/other") || len(w.checkpoint().Subscriptions) != 2 {
				t.Errorf("not back-filled: %v", w.checkpoint().Subscriptions)
			}
			for _, q := range w.queries {
				if len(q.Subscriptions) == 0 && q.Top > 1 {
					t.Error("a query without its scope")
				}
			}
			w.readable = []string{"sub-1"}
		})
		settle(4 * time.Hour)
		if got := w.checkpoint().Subscriptions; len(got) != 1 {
			t.Errorf("seen: %v", got)
		}
		w.notBelow(t, now.Add(-30*24*time.Hour))
		r.halt(t)
	})
}

func TestManySubscriptionsAreAskedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.readable = nil
		now := time.Now()
		for i := range 700 {
			sub := fmt.Sprintf("sub-%03d", i)
			w.readable = append(w.readable, sub)
			w.put("/"+sub, now.Add(-time.Hour+time.Duration(i)*time.Second)).sub = sub
		}
		failing := true
		w.onPage = func(q resourcegraph.Query, _ int) error {
			if len(q.Subscriptions) > resourcegraph.MaxSubscriptions {
				t.Errorf("%d subscriptions in a query", len(q.Subscriptions))
			}
			if q.Top > 1 && failing && q.Subscriptions[0] > "sub-500" {
				return errors.New("simulated")
			}
			return nil
		}
		r := w.start(t, func(o *Options) { o.Service.Subscriptions = append([]string(nil), w.readable...) })
		settle(5 * time.Minute)
		w.with(func() {
			if c := w.checkpoint(); !c.LastEventTime.Equal(c.Floor) {
				t.Error("the position moved although a part of the scope was not read")
			}
			failing = false
		})
		settle(2 * time.Minute)
		w.with(func() {
			if len(w.raw) != 700 || !w.checkpoint().LastEventTime.Equal(now.Add(-time.Hour+699*time.Second)) {
				t.Errorf("%d rows", len(w.raw))
			}
		})
		r.halt(t)
	})
}

func TestBackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-40 * 24 * time.Hour)
		w.putMany(960, begin, time.Hour)
		var stuck time.Time // windows that reach it fail
		w.onPage = func(q resourcegraph.Query, _ int) error {
			from, to := window(q.Text)
			if !stuck.IsZero() && !to.IsZero() && !from.After(stuck) && to.After(stuck) {
				return errors.New("simulated")
			}
			return nil
		}
		stuck = begin.Add(20 * 24 * time.Hour)
		w.onRecord = func(c *proto.Checkpoint) {
			for _, a := range w.alerts {
				if a.start.Before(c.LastEventTime) && !w.rawHas(a.id) {
					t.Fatalf("the position %v passed %s", c.LastEventTime, a.id)
				}
			}
		}
		r := w.start(t, func(o *Options) { o.Service.Start = begin })
		settle(10 * time.Minute)
		w.with(func() {
			if c := w.checkpoint(); c.LastEventTime.After(stuck) || !c.LastEventTime.After(begin) {
				t.Errorf("position %v with a failing window at %v", c.LastEventTime, stuck)
			}
			w.put("/new", time.Now())
		})
		settle(2 * time.Minute)
		w.with(func() {
			if !w.rawHas("/new") {
				t.Error("the back-fill starves the steady pull")
			}
			stuck = time.Time{}
		})
		settle(10 * time.Minute)
		w.with(func() {
			if len(w.raw) != 961 {
				t.Errorf("%d rows", len(w.raw))
			}
			if c := w.checkpoint(); time.Since(c.LastEventTime) > time.Hour {
				t.Errorf("position %v", c.LastEventTime)
			}
		})
		w.notBelow(t, begin)
		r.halt(t)
	})
}

func TestModeChangeClaimsKnownRowsWithoutSending(t *testing.T) {
	for _, modes := range [][2]string{{DeduplicateAlert, DeduplicateVersion}, {DeduplicateVersion, DeduplicateAlert}} {
		t.Run(modes[1], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				mode := func(m string) func(*Options) { return func(o *Options) { o.Service.Deduplication = m } }
				w.put("/known", time.Now().Add(-20*time.Hour))
				r := w.start(t, mode(modes[0]))
				settle(time.Minute)
				r.halt(t)
				w.dedup()
				w.put("/unknown", time.Now().Add(-15*time.Hour))
				r = w.start(t, mode(modes[1]))
				settle(5 * time.Minute)
				w.with(func() {
					if w.checkpoint().Deduplication != modes[1] || w.checkpoint().Generation != 1 {
						t.Errorf("record %+v", w.checkpoint())
					}
					for _, e := range w.raw[1:] {
						if e.ClaimOnly != (e.AlertID == "/known") {
							t.Errorf("%s claim-only %v", e.AlertID, e.ClaimOnly)
						}
					}
					if w.rawCount("/known") != 2 || w.rawCount("/unknown") != 1 {
						t.Errorf("known %d, unknown %d", w.rawCount("/known"), w.rawCount("/unknown"))
					}
					w.dedup()
					w.alerts["/known"].version++
				})
				settle(40 * time.Minute)
				want := 2
				if modes[1] == DeduplicateVersion {
					want = 3 // a new version is sent
				}
				if n := w.rawCount("/known"); n != want {
					t.Errorf("known %d times", n)
				}
				r.halt(t)
			})
		})
	}
}

func TestIdlePullsAreQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		settle(2 * time.Hour)
		for _, line := range []string{"INFO Fetching all", "INFO Statistics", "INFO The data is up to date!"} {
			if n := r.logs.count(line); n != 1 {
				t.Errorf("%d times %q", n, line)
			}
		}
		r.halt(t)
	})
}

func TestOperatorsChangeOfTheRecordIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now()
		w.put("/a", begin.Add(-20*time.Hour))
		w.put("/b", begin.Add(-time.Hour))
		r := w.start(t, nil)
		settle(time.Minute)
		w.with(func() {
			if w.rawCount("/a") != 1 {
				t.Error("not read")
			}
			// checkpoint reset --to --resend
			c := w.checkpoint()
			c.LastEventTime, c.Generation = c.Floor, 2
			data, _ := json.Marshal(c)
			w.revision++
			w.keys[proto.RecordKey(testSource)] = &entry{value: data, revision: w.revision}
		})
		settle(3 * time.Minute)
		w.with(func() {
			if w.rawCount("/a") != 2 || w.checkpoint().Generation != 2 || w.raw[len(w.raw)-1].Generation != 2 {
				t.Errorf("read %d times", w.rawCount("/a"))
			}
		})
		r.halt(t)
	})
}
