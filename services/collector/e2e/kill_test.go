//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	"defenderiot/pkg/faultpoint"
	"defenderiot/services/simulator"
)

// killAt runs the one process until it is killed at its n-th arrival at a point.
func (w *world) killAt(point string, n int) {
	w.t.Helper()
	p := w.with([]string{fmt.Sprintf("COLLECTOR_KILL_AT=%s:%d", point, n)}, killableProgram, "run", "--config", "config.yaml")
	p.killed()
	w.kills++
	w.breaks++
}

// Between any two durable steps the one process may die while alerts flow.
func TestKilledBetweenDurableSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000})
	end := w.feed(30)
	var slowest time.Duration
	for i, point := range []string{
		faultpoint.PageReceived, faultpoint.RawAcknowledged, faultpoint.CheckpointMoved,
		faultpoint.Claimed, faultpoint.Published, faultpoint.DedupAcknowledged,
		faultpoint.LedgerWritten, faultpoint.FramesWritten, faultpoint.LedgerConfirmed, faultpoint.OutputSettled,
	} {
		w.killAt(point, 1+i%3)
		p := w.start(killableProgram, "run")
		slowest = max(slowest, w.flows())
		w.kill(p) // anywhere
		w.breaks++
	}
	p := w.run()
	slowest = max(slowest, w.flows())
	end()
	w.settle(slowest)
	p.stop()
}

// The same alerts are written again and again, and each time counts: a crash must not forget that it
// counted.
func TestKilledWithTheSameFramesWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 400})
	for range 3 {
		w.killAt(faultpoint.FramesWritten, 1)
	}
	resumed := w.resumes()
	p := w.run()
	a := w.settle(resumed())
	if a.repeats == 0 {
		t.Error("nothing was sent again, so this test has shown nothing")
	}
	p.stop()
}

// resumes returns a function that waits until an alert has arrived, new or again, and says how long that
// took from now on.
func (w *world) resumes() func() time.Duration {
	begun, before := time.Now(), w.sim.Devo.Stats().Frames
	return func() time.Duration {
		w.t.Helper()
		eventually(w.t, "alerts to flow", func() bool { return w.sim.Devo.Stats().Frames > before })
		return time.Since(begun)
	}
}
