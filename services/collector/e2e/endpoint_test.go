//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/services/collector/e2e/internal/child"
	"defenderiot/services/simulator"
)

// A connection that stalls and is then reset, with thousands of alerts on it.
func TestEndpointStallsAndResets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 4000})
	p := w.waiting(4000)
	w.sim.Devo.Fail(simulator.DevoFault{AfterFrames: 2000, Stall: 3 * time.Second, End: simulator.Reset})
	w.breaks++
	w.back()
	end := w.feed(20)
	eventually(t, "the connection to break", func() bool { return w.sim.Devo.Stats().Broken > 0 })
	recovered := w.flows()
	// The kernel tells of a reset once: when a write was told, reading finds a plain end.
	eventually(t, "the reason in the log", func() bool {
		return slices.ContainsFunc(p.Log.Lines("delivery to "+outputName), func(line string) bool {
			return strings.Contains(line, "reset the connection") || strings.Contains(line, "closed the connection")
		})
	})
	end()
	w.healthy(p, recovered)
}

// An endpoint that says good-bye properly although it has not read everything: to TLS that looks like an
// orderly end, and a sender that believes it loses alerts.
func TestEndpointClosesWithUnreadData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000})
	p := w.waiting(3000)
	for _, frames := range []int64{100, 1500} {
		w.sim.Devo.Fail(simulator.DevoFault{AfterFrames: frames, End: simulator.CloseUnread})
		w.breaks++
	}
	w.back()
	end := w.feed(20)
	eventually(t, "the connections to break", func() bool { return w.sim.Devo.Stats().Broken >= 2 })
	recovered := w.flows()
	end()
	w.healthy(p, recovered)
}

// The same while the sender has written everything and waits for the answer to its half-close.
func TestEndpointClosesUnderHalfClose(t *testing.T) {
	t.Parallel()
	// Few enough that the kernels' buffers take what the endpoint does not read, so that no write is stuck.
	w := newWorld(t, simulator.Options{Backfill: 80})
	p := w.waiting(80)
	w.sim.Devo.Fail(simulator.DevoFault{AfterFrames: 40, Stall: 4 * time.Second, End: simulator.CloseUnread})
	w.breaks++
	w.back()
	eventually(t, "the connection to break", func() bool { return w.sim.Devo.Stats().Broken > 0 })
	begun := time.Now()
	w.arrived()
	a := w.healthy(p, time.Since(begun))
	if a.repeats == 0 || a.resent == 0 {
		t.Error("nothing was sent again, so this test has shown nothing")
	}
}

// waiting runs the collector without an endpoint until n alerts wait to be delivered.
func (w *world) waiting(n uint64) *program {
	w.t.Helper()
	w.sim.Devo.Away()
	p := w.run()
	eventually(w.t, "alerts to wait", func() bool { return *w.status().Events.Unique >= n })
	return p
}

// back lets the endpoint listen again.
func (w *world) back() {
	w.t.Helper()
	if err := w.sim.Devo.Back(); err != nil {
		w.t.Fatal(err)
	}
}

// healthy settles the account of a process that must have survived.
func (w *world) healthy(p *program, recovered time.Duration) account {
	w.t.Helper()
	a := w.settle(recovered)
	if !p.Running() {
		w.t.Errorf("%s did not survive", p.Name)
		return a
	}
	p.stop()
	return a
}

// Devo is not there when the collector starts, and goes away later.
func TestEndpointAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1000})
	w.sim.Devo.Away()
	p := w.run()
	end := w.feed(20)
	var slowest time.Duration
	for round := range 2 {
		eventually(t, "the trouble to be told", func() bool {
			return len(p.Log.Lines("ERROR", "delivery to "+outputName, "hint=", "refused")) == round+1
		})
		// Long enough for several backoffs, whose waits grow to 5 s.
		time.Sleep(12 * time.Second)
		w.quiet(p, 3*(round+1))
		w.back()
		slowest = max(slowest, w.flows())
		eventually(t, "the mend to be told", func() bool {
			return len(p.Log.Lines("delivery to "+outputName, "works again")) == round+1
		})
		if round == 0 {
			w.add(2000)
			w.flows() // so that a part of them is on its way
			w.sim.Devo.Away()
			w.breaks++
		}
	}
	end()
	w.healthy(p, slowest)
}

// quiet demands that a failure that repeats is not logged again and again.
func (w *world) quiet(p *program, most int) {
	w.t.Helper()
	if lines := p.Log.Lines("ERROR", "delivery to "+outputName); len(lines) > most {
		w.t.Errorf("%d lines about one failure, want at most %d:\n%v", len(lines), most, lines)
	}
}

// Certificates: each kind of refusal is told once with its remedy, and the mend is noticed.
func TestEndpointCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 200})
	refuse := func() { w.sim.Devo.Fail(simulator.DevoFault{Refuse: true, Connections: -1}) }
	present := func(f simulator.Flaw) func() {
		return func() {
			if err := w.sim.Devo.Present(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	accept, sound := w.sim.Devo.Clear, present(simulator.Sound)
	refuse()
	p := w.run()
	end := w.feed(10)
	var slowest time.Duration
	for _, tt := range []struct {
		name         string
		fail, mend   func()
		line, remedy string
	}{
		{"client refused", refuse, accept, "refused our client certificate", "check that cert and key are the ones of the Devo domain"},
		{"server expired", present(simulator.Expired), sound, "expired", "must renew its certificate"},
		{"server for another host", present(simulator.WrongName), sound, "for another host name", "server_name"},
	} {
		if tt.name != "client refused" {
			tt.fail()
		}
		line := p.says("ERROR", "delivery to "+outputName, tt.line)
		if !child.All(line, []string{"hint=", tt.remedy}) {
			t.Errorf("%s: no remedy %q in %s", tt.name, tt.remedy, line)
		}
		before := w.sim.Devo.Stats().Refused
		eventually(t, "further tries", func() bool { return w.sim.Devo.Stats().Refused >= before+4 })
		if lines := p.Log.Lines("ERROR", "delivery to "+outputName, tt.line); len(lines) != 1 {
			t.Errorf("%s: %d lines, want 1:\n%v", tt.name, len(lines), lines)
		}
		tt.mend()
		slowest = max(slowest, w.flows())
		w.breaks++ // what was on its way when the certificate changed
	}
	p.says("delivery to "+outputName, "works again")
	end()
	w.healthy(p, slowest)
	if lines := p.Log.Lines("ERROR"); len(lines) > 6 {
		t.Errorf("%d error lines for 3 failures:\n%v", len(lines), lines)
	}
}
