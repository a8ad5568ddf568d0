package fetcher

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

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
				w.settle(time.Minute)
				r.halt(t)
				w.dedup()
				r = w.start(t, tc.second)
				w.settle(time.Minute)
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
					w.settle(26 * time.Hour)
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
				w.settle(10 * time.Minute)
				if got := string(w.keys[proto.RecordKey(testSource)].value); got != value || len(w.raw) != 0 {
					t.Errorf("record %s, %d rows", got, len(w.raw))
				}
				if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "PrePullError") {
					t.Errorf("ready: %v", err)
				}
				if n := r.logs.count("ERROR PrePullError [CODE:0001] reason: "); n != 1 || r.logs.count("hint=") == 0 || r.logs.count("Sleeping 60 sec before retry pre-pull") != 1 {
					t.Errorf("logged %d times", n)
				}
				r.halt(t)
			})
		})
	}
}

func TestModeChangeClaimsKnownRowsWithoutSending(t *testing.T) {
	for _, modes := range [][2]string{{DeduplicateAlert, DeduplicateVersion}, {DeduplicateVersion, DeduplicateAlert}} {
		t.Run(modes[1], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				mode := func(m string) func(*Options) { return func(o *Options) { o.Service.Deduplication = m } }
				w.put("/known", time.Now().Add(-20*time.Hour))
				r := w.start(t, mode(modes[0]))
				w.settle(time.Minute)
				r.halt(t)
				w.dedup()
				w.put("/unknown", time.Now().Add(-15*time.Hour))
				r = w.start(t, mode(modes[1]))
				w.settle(5 * time.Minute)
				w.with(func() {
					if w.checkpoint().Deduplication != modes[0] {
						t.Error("the change counts as done and nothing is claimed")
					}
				})
				stop := w.dedupRuns()
				defer stop()
				w.settle(5 * time.Minute)
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
				w.settle(40 * time.Minute)
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

// What RAW still holds from before the change of the mode is not known by any claim yet: nothing is read until dedup is
// done with it, or it would be sent once under each mode.
func TestModeChangeWaitsForDedup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/waits", time.Now().Add(-20*time.Hour))
		r := w.start(t, nil)
		w.settle(time.Minute)
		r.halt(t)
		r = w.start(t, func(o *Options) { o.Service.Deduplication = DeduplicateVersion })
		w.settle(5 * time.Minute)
		w.with(func() {
			if n := w.rawCount("/waits"); n != 1 {
				t.Errorf("published %d times while dedup does not follow", n)
			}
		})
		if r.logs.count("WARN waiting until dedup has claimed what was sent before") != 1 {
			t.Error("nobody says what is waited for")
		}
		stop := w.dedupRuns()
		defer stop()
		w.settle(5 * time.Minute)
		w.with(func() {
			sent := 0
			for _, e := range w.raw {
				if !e.ClaimOnly {
					sent++
				}
			}
			if w.rawCount("/waits") != 2 || sent != 1 || w.checkpoint().Deduplication != DeduplicateVersion {
				t.Errorf("published %d times, %d to be sent, mode %s", w.rawCount("/waits"), sent, w.checkpoint().Deduplication)
			}
		})
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
		w.settle(time.Minute)
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
		w.settle(3 * time.Minute)
		w.with(func() {
			if w.rawCount("/a") != 2 || w.checkpoint().Generation != 2 || w.raw[len(w.raw)-1].Generation != 2 {
				t.Errorf("read %d times", w.rawCount("/a"))
			}
		})
		r.halt(t)
	})
}
