//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// beforePage is how many queries come before the second page of the first pull: the test fetch, the subscriptions, the
// first page.
const beforePage = 3

// tokens counts the answers with a status to requests that carried a skip token.
func (w *world) tokens(status int) (n int) {
	for _, r := range w.sim.Graph.Requests() {
		if r.SkipToken != "" && r.Status == status {
			n++
		}
	}
	return n
}

// In the middle of a set of pages Azure refuses, throttles, forgets its token or says nothing at all. What was read stays
// read, the rest is read later, nothing comes twice.
func TestAzureFailsBetweenPages(t *testing.T) {
	t.Parallel()
	rejected := simulator.Fault{RejectToken: true}
	for name, tt := range map[string]struct {
		fault  simulator.Fault
		status int
		after  time.Duration // until the client gives up on an answer
	}{
		"401":                     {simulator.Unauthorized(), 401, 0},
		"401 with a claim":        {simulator.ClaimsChallenge(), 401, 0},
		"429 with Retry-After":    {simulator.TooManyRequests(2), 429, 0},
		"429 without Retry-After": {simulator.TooManyRequests(-1), 429, 0},
		"a rejected token":        {rejected, 400, 0},
		"no answer":               {simulator.Fault{Stall: true}, 0, time.Minute},
		"a late answer":           {simulator.Fault{Delay: 5 * time.Second}, 200, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.after > 0 {
				long(t)
			}
			w := newWorld(t, simulator.Options{Backfill: 5500})
			tt.fault.Skip, tt.fault.Answers = beforePage, 2
			w.sim.Graph.Fail(tt.fault)
			if tt.after > 0 {
				w.sim.Graph.ClearFaults()
				tt.fault.Answers = 1
				w.sim.Graph.Fail(tt.fault)
			}
			begun := time.Now()
			p := w.run()
			end := w.feed(10)
			w.flows()
			time.Sleep(time.Until(begun.Add(tt.after)))
			recovered := w.flows()
			end()
			a := w.healthy(p, recovered)
			if w.tokens(tt.status) == 0 {
				t.Errorf("no request with a skip token was answered %d, so this test has shown nothing", tt.status)
			}
			if a.repeats != 0 || a.resent != 0 {
				t.Errorf("%d alerts came again", a.repeats)
			}
		})
	}
}

// Rows come and go while their pages are being read, so that others move over the boundary between two pages, in both
// directions. None is left out, none comes twice.
func TestAzureShiftsPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 6000})
	first := w.sim.Graph.Rows()[0]
	for _, row := range w.sim.Graph.Rows() {
		at, _ := row.Start()
		if oldest, _ := first.Start(); at.Before(oldest) {
			first = row
		}
	}
	oldest, _ := first.Start()
	ballast := make([]simulator.Row, 40)
	for i := range ballast {
		ballast[i] = w.sim.Generator.NextAt(oldest.Add(time.Duration(i-len(ballast)) * time.Millisecond))
	}
	w.sim.Graph.Add(ballast...)
	// Each of these pages waits for what is done meanwhile.
	for range 4 {
		w.sim.Graph.Fail(simulator.Fault{Skip: beforePage, Delay: 3 * time.Second})
	}
	p := w.run()
	for i := range 4 {
		eventually(t, "a page to be asked for", func() bool { return w.sim.Graph.Stats().Queries > int64(beforePage+i) })
		if i%2 == 0 {
			for _, row := range ballast {
				w.sim.Graph.Delete(row.ID())
			}
		} else {
			w.sim.Graph.Add(ballast...)
		}
	}
	w.flows()
	end := w.feed(10)
	recovered := w.flows()
	end()
	if a := w.healthy(p, recovered); a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again", a.repeats)
	}
}

// More alerts of one instant than a page holds, at the end of one page, over a whole one and into the next; and sensors
// that are ahead of time: the position must pass neither what has the same instant nor the present.
func TestAzureEqualTimesAndSensorsAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1500})
	instant := time.Now().Add(-20 * time.Minute).Truncate(time.Millisecond)
	for range 2300 {
		w.sim.Graph.Add(w.sim.Generator.NextAt(instant))
	}
	ahead := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour}
	for _, d := range ahead {
		w.sim.Graph.Add(w.sim.Generator.NextAt(time.Now().Add(d)))
	}
	p := w.run()
	end := w.feed(10)
	w.flows()
	w.sim.Graph.Fail(simulator.Fault{RejectToken: true, Answers: 2})
	w.kill(p)
	w.breaks++
	p = w.run()
	recovered := w.flows()
	for _, d := range ahead { // and again, behind the position that the first ones might have moved
		w.sim.Graph.Add(w.sim.Generator.NextAt(time.Now().Add(d / 2)))
	}
	w.flows()
	end()
	if at := w.status().Checkpoint.LastEventTime; at.After(time.Now()) {
		t.Errorf("the position stands at %v, in the future", at)
	}
	w.healthy(p, recovered)
}

// This machine's clock is an hour off, in either direction, from the start and changed while everything runs. Time is
// Azure's: nothing is missing, nothing comes twice, and the position does not run ahead.
func TestClockAnHourOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 2500})
	file := filepath.Join(w.dir, "clock")
	off := func(d time.Duration) {
		if err := os.WriteFile(file+".new", []byte(d.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	off(time.Hour)
	run := func() *program {
		return w.with([]string{"COLLECTOR_CLOCK=" + file}, killableProgram, "run", "--config", "config.yaml")
	}
	p := run()
	end := w.feed(20)
	slowest := w.flows()
	for _, d := range []time.Duration{-time.Hour, time.Hour, 0, -time.Hour} {
		off(d)
		slowest = max(slowest, w.flows())
		time.Sleep(3 * time.Second) // a few pulls
		slowest = max(slowest, w.flows())
		if at := w.status().Checkpoint.LastEventTime; at.After(time.Now().Add(time.Second)) || at.Before(time.Now().Add(-time.Minute)) {
			t.Errorf("with a clock that is %v off the position stands at %v, %v from now", d, at, time.Until(at))
		}
	}
	// A stop and a start under the wrong clock.
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		p.stop()
		off(d)
		p = run()
		slowest = max(slowest, w.flows())
	}
	end()
	if a := w.healthy(p, slowest); a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again, %d are counted as possibly resent", a.repeats, a.resent)
	}
	var early, late bool
	for _, p := range w.programs {
		for _, found := range pullingID.FindAllStringSubmatch(p.Log.String(), -1) {
			ms, _ := strconv.ParseInt(found[1], 10, 64)
			early = early || time.Since(time.UnixMilli(ms)) > 50*time.Minute
			late = late || time.Until(time.UnixMilli(ms)) > 50*time.Minute
		}
	}
	if !early || !late {
		t.Errorf("pulls are named by a clock that was early: %v, late: %v, so this test has shown nothing", early, late)
	}
}

var pullingID = regexp.MustCompile(`@devo_pulling_id=(\d+)`)
