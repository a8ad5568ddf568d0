//go:build e2e

package e2e

import (
	"fmt"
	"time"
)

// account is what a fault test has to show for itself.
type account struct {
	created, arrived, missing, repeats int
	resent                             uint64 // counted by the collector as possibly resent
	cut                                int64  // tails of frames at the endpoint
	breaks, kills                      int
	peak                               int64 // bytes, of the processes that were there to the end
	recovered                          time.Duration
}

func (a account) String() string {
	return fmt.Sprintf("created %d, arrived %d, missing %d, repeats %d, counted as possibly resent %d (at most %d for %d breaks), cut tails %d, flowed again after %v",
		a.created, a.arrived, a.missing, a.repeats, a.resent, a.breaks*unconfirmedBound, a.breaks, a.cut, a.recovered.Round(100*time.Millisecond))
}

// settle waits until everything is delivered and confirmed, and closes the account. recovered is the
// longest time from the end of a fault to the next arrival.
func (w *world) settle(recovered time.Duration) account {
	w.t.Helper()
	w.arrived()
	s := w.confirmed()
	a := account{missing: len(w.sim.Missing()), resent: *s.Outputs[outputName].Resent, breaks: w.breaks, kills: w.kills, recovered: recovered}
	ids := map[string]bool{}
	for _, row := range w.sim.Graph.Rows() {
		if id := row.ID(); id != "" {
			ids[id] = true
		}
	}
	a.created = len(ids)
	for id, n := range w.sim.Devo.Counts() {
		if !ids[id] {
			w.t.Errorf("%s arrived and was never made", id)
		}
		a.arrived++
		a.repeats += n - 1
	}
	a.cut = w.sim.Devo.Stats().CutTails
	w.t.Logf("account: %v", a)
	if a.missing > 0 {
		w.t.Errorf("%d alerts are missing", a.missing)
	}
	if uint64(a.repeats) > a.resent {
		w.t.Errorf("%d alerts arrived again and only %d are counted as possibly resent", a.repeats, a.resent)
	}
	if a.resent > uint64(a.breaks)*unconfirmedBound {
		w.t.Errorf("%d alerts are counted as possibly resent, more than %d for each of %d breaks", a.resent, unconfirmedBound, a.breaks)
	}
	if recovered > recoveryBound {
		w.t.Errorf("alerts flowed again after %v, later than %v", recovered, recoveryBound)
	}
	for _, p := range w.programs {
		if p.Running() && p.Name != natsProgram {
			a.peak = max(a.peak, p.memory(a.created))
			p.atRest()
		}
	}
	w.enter(a)
	if n := *s.DeadLetters; n != 0 {
		w.t.Logf("dead letters: %d", n)
	}
	return a
}
