package fetcher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// How long after Resource Graph shows a row RAW has it at the latest: one inside the lookback, and any other. Promised are
// 31 minutes and 25 hours up to the endpoint.
const (
	lateInside  = 30*time.Minute + 30*time.Second
	lateOutside = 24*time.Hour + 30*time.Minute
)

// late shows rows late and notes when RAW has them.
type late struct {
	*world
	shown, stored map[string]time.Time
	inside        map[string]bool
}

func newLate() *late {
	l := &late{world: newWorld(), shown: map[string]time.Time{}, stored: map[string]time.Time{}, inside: map[string]bool{}}
	l.publish = func(msgs []bus.Message) error {
		for _, m := range msgs {
			e, err := proto.DecodeEnvelope(m.Data)
			if err != nil {
				return err
			}
			if _, ok := l.stored[e.AlertID]; !ok {
				l.stored[e.AlertID] = time.Now()
			}
		}
		return nil
	}
	return l
}

// show adds a row now that started before.
func (l *late) show(before time.Duration, inside bool) {
	id := fmt.Sprintf("/late/%05d", len(l.shown))
	l.shown[id], l.inside[id] = time.Now(), inside
	l.put(id, time.Now().Add(-before))
}

// worst returns the longest time from being shown to RAW, and how many rows RAW has not.
func (l *late) worst(inside bool) (longest time.Duration, missing int) {
	for id, at := range l.shown {
		if l.inside[id] != inside {
			continue
		}
		if got, ok := l.stored[id]; ok {
			longest = max(longest, got.Sub(at))
		} else {
			missing++
		}
	}
	return longest, missing
}

// judge demands the bounds.
func (l *late) judge(t *testing.T) {
	t.Helper()
	for _, b := range []struct {
		where  string
		inside bool
		bound  time.Duration
	}{{"inside the lookback", true, lateInside}, {"outside of it", false, lateOutside}} {
		longest, missing := l.worst(b.inside)
		t.Logf("%s: the latest after %v", b.where, longest)
		if longest > b.bound || missing > 0 {
			t.Errorf("%s: the latest after %v, %d never", b.where, longest, missing)
		}
	}
}

// hour shows a few rows of each kind in the next hour, at any moment of it.
func (l *late) hour(random *rand.Rand) {
	for range 6 {
		l.settle(time.Duration(random.Int64N(int64(20 * time.Minute))))
		l.with(func() {
			l.show(time.Hour+time.Duration(random.Int64N(int64(46*time.Hour))), true)
			l.show(49*time.Hour+time.Duration(random.Int64N(int64(80*24*time.Hour))), false)
		})
	}
}

// rare makes the pulls few, which have no part in this, and reads far back.
func (l *late) rare(floor time.Time) func(*Options) {
	return func(o *Options) { o.Service.Period, o.Service.Start = 20*time.Minute, floor }
}

// However late Resource Graph shows a row: half an hour later RAW has it if it started inside the lookback, a day
// later if it started anywhere else. Days without a restart; pages take their
// time, so that a sweep takes many minutes.
func TestLateRows(t *testing.T) {
	if testing.Short() {
		t.Skip("days of simulated time: run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		w, random := newLate(), rand.New(rand.NewPCG(1, 2))
		floor := time.Now().Add(-200 * 24 * time.Hour)
		w.putMany(300, floor, 16*time.Hour)
		w.pageTime, w.pageRows = 2*time.Second, 2
		r := w.start(t, w.rare(floor))
		for range 12 * 12 {
			w.hour(random)
		}
		w.settle(25 * time.Hour)
		w.with(func() { w.judge(t) })
		r.halt(t)
	})
}

// Restarts at any time of the day, orderly ones and crashes, put nothing off.
func TestLateRowsOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, random := newLate(), rand.New(rand.NewPCG(3, 4))
		floor := time.Now().Add(-200 * 24 * time.Hour)
		w.putMany(300, floor, 16*time.Hour)
		w.pageTime = 2 * time.Second
		r := w.start(t, w.rare(floor))
		for range 16 {
			for range 1 + random.IntN(14) {
				w.hour(random)
			}
			if random.IntN(2) == 0 {
				r.process.dieAfter(1, true, nil)
				w.settle(time.Second)
			}
			r.halt(t)
			r = w.start(t, w.rare(floor))
		}
		w.settle(25 * time.Hour)
		w.with(func() { w.judge(t) })
		r.halt(t)
	})
}

// A crash in the middle of a day's sweep: it begins again at once, not a day later.
func TestLateRowsWhenTheSweepIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLate()
		floor := time.Now().Add(-89 * 24 * time.Hour)
		w.putMany(300, floor, 7*time.Hour)
		w.pageTime = 2 * time.Second
		r := w.start(t, w.rare(floor))
		w.settle(time.Hour) // the first reading
		var last time.Time  // when a sweep was cut off
		w.with(func() {
			w.onPage = func(q resourcegraph.Query, _ int) error {
				// Beyond the lookback there is nothing but the sweep.
				from, to := window(q.Text)
				if !to.IsZero() && to.Before(time.Now().Add(-72*time.Hour)) && from.Before(time.Now().Add(-60*24*time.Hour)) && time.Since(last) > 47*time.Hour {
					last = time.Now()
					r.process.dieAfter(1, true, r.cancel)
				}
				return nil
			}
		})
		for range 10 * 24 {
			w.with(func() { w.show(5*24*time.Hour, false) })
			w.settle(time.Hour)
			select {
			case <-r.done:
				r = w.start(t, w.rare(floor))
			default:
			}
		}
		w.with(func() { w.onPage = nil })
		w.settle(25 * time.Hour)
		w.with(func() {
			if last.IsZero() {
				t.Error("no sweep was cut off")
			}
			w.judge(t)
		})
		r.halt(t)
	})
}

// While a back-fill goes on for hours, since Azure is slow, late rows come in time all the same.
func TestLateRowsBesideABackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, random := newLate(), rand.New(rand.NewPCG(5, 6))
		floor := time.Now().Add(-80 * 24 * time.Hour)
		w.putMany(200, floor, 9*time.Hour)
		w.onPage = func(q resourcegraph.Query, _ int) error {
			// One of its windows fails for days.
			if from, to := window(q.Text); !to.IsZero() && from.Equal(floor) && len(w.shown) < 200 {
				return context.DeadlineExceeded
			}
			return nil
		}
		r := w.start(t, w.rare(floor))
		w.settle(time.Hour)
		for range 40 {
			w.with(func() { w.show(time.Hour+time.Duration(random.Int64N(int64(46*time.Hour))), true) })
			w.settle(time.Duration(random.Int64N(int64(time.Hour))))
		}
		w.with(func() {
			for range 200 {
				w.show(50*time.Hour, false)
			}
		})
		w.settle(25 * time.Hour)
		w.with(func() { w.judge(t) })
		r.halt(t)
	})
}
