package fetcher

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// step is one thing that happens to the world, and how long passes after it.
type step struct {
	kind   int
	n      int
	age    time.Duration
	flag   bool
	pause  time.Duration
	target int
}

const (
	stepInsert = iota
	stepInsertMany
	stepChange
	stepDelete
	stepDeleteBetweenPages
	stepFailPages
	stepFailPublish
	stepCrash
	stepStop
	stepDedup
	stepFull
	stepKinds
)

func steps() *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			kind:   rapid.IntRange(0, stepKinds-1).Draw(t, "kind"),
			n:      rapid.IntRange(0, 30).Draw(t, "n"),
			age:    time.Duration(rapid.IntRange(-600, 40*3600).Draw(t, "age")) * time.Second,
			flag:   rapid.Bool().Draw(t, "flag"),
			pause:  time.Duration(rapid.IntRange(0, 400).Draw(t, "pause")) * time.Second,
			target: rapid.IntRange(0, 1<<20).Draw(t, "target"),
		}
	})
	return rapid.SliceOfN(one, 1, 12)
}

// TestNoRowIsLost: whatever is inserted (also late, also between pages), changed or deleted, whatever
// fails, and whenever the process is killed at any call to the outside, with the call done or not: a row
// that stays is in RAW in the end, no query reaches below the floor, and the position never passes a row
// that the pull could see on its first page and that RAW has not acknowledged.
func TestNoRowIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan := steps().Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(t *testing.T) { problem = play(t, plan) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// play returns what went wrong, or "".
func play(t *testing.T, plan []step) (problem string) {
	w := newWorld()
	fail := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf(format, args...)
		}
	}
	floor := time.Now().Add(-30 * time.Hour)
	const overlap = 10 * time.Minute
	next := 0
	var seen, inserted, deleted time.Time // the first page of the pull under way, the last change of each kind
	insert := func(start time.Time) {
		inserted = time.Now()
		w.put(fmt.Sprintf("/row/%05d", next), start)
		next++
	}
	w.pageRows = 100
	for i := range 120 {
		insert(time.Now().Add(-20*time.Hour + time.Duration(i)*time.Second))
	}
	failPages, failPublish, deleteBetween := 0, 0, -1
	var due []*alert // what the steady pull under way saw on its first page
	w.onPage = func(q resourcegraph.Query, offset int) error {
		if failPages > 0 {
			failPages--
			return context.DeadlineExceeded
		}
		if offset > 0 && deleteBetween >= 0 {
			if rows := w.match(q); len(rows) > 0 {
				delete(w.alerts, rows[deleteBetween%len(rows)].id)
				deleted = time.Now()
			}
			deleteBetween = -1
		}
		if c := w.checkpoint(); c != nil && offset == 0 {
			from, to := window(q.Text)
			if to.IsZero() && from.Equal(later(c.LastEventTime.Add(-overlap), c.Floor)) {
				due, seen = w.match(q), time.Now()
			}
		}
		return nil
	}
	w.publish = func([]bus.Message) error {
		if failPublish > 0 {
			failPublish--
			return context.DeadlineExceeded
		}
		return nil
	}
	var last proto.Checkpoint
	w.onRecord = func(c *proto.Checkpoint) {
		if c.LastEventTime.Before(last.LastEventTime) {
			fail("the position went back from %v to %v", last.LastEventTime, c.LastEventTime)
		}
		moved := c.LastEventTime.After(last.LastEventTime)
		last = *c
		if c.LastEventTime.After(w.azureNow()) {
			fail("the position %v is in the future", c.LastEventTime)
		}
		if !moved {
			return // written again by the holder of a new lease
		}
		// A row that goes and another that comes between the same two pages leave the total as it was, so
		// nothing shows that a third has slipped past the boundary. The overlap and the lookback find it.
		quick := func(at time.Time) bool { return !at.Before(seen) && at.Sub(seen) < tokenLife }
		if quick(inserted) && quick(deleted) {
			return
		}
		for _, a := range due {
			if w.alerts[a.id] == a && a.start.Before(c.LastEventTime) && !w.rawHas(a.id) {
				fail("the position %v passed %s of %v", c.LastEventTime, a.id, a.start)
			}
		}
	}
	begin := func() *running {
		return w.start(t, func(o *Options) { o.Service.Start, o.Service.Overlap = floor, overlap })
	}
	r := begin()
	for _, s := range plan {
		switch s.kind {
		case stepInsert, stepInsertMany:
			w.with(func() {
				n := 1
				if s.kind == stepInsertMany {
					n = 10 * s.n
				}
				for i := range n {
					start := w.azureNow().Add(-s.age).Add(time.Duration(i) * time.Millisecond)
					if !start.Before(floor) {
						insert(start)
					}
				}
			})
		case stepChange, stepDelete:
			w.with(func() {
				id := fmt.Sprintf("/row/%05d", s.target%next)
				if a := w.alerts[id]; a != nil && s.kind == stepChange {
					a.version++
				} else {
					delete(w.alerts, id)
					deleted = time.Now()
				}
			})
		case stepDeleteBetweenPages:
			w.with(func() { deleteBetween = s.target })
		case stepFailPages:
			w.with(func() { failPages = s.n })
		case stepFailPublish:
			w.with(func() { failPublish = s.n })
		case stepDedup:
			w.with(w.dedup)
		case stepFull:
			w.with(func() { w.full = s.flag })
		case stepCrash:
			// Calls of the dead process fail from then on; a new one starts beside what is left of it.
			r.dieAfter(s.n, s.flag, r.cancel)
			time.Sleep(s.pause)
			r.dieAfter(0, s.flag, r.cancel)
			<-r.done
			r = begin()
		case stepStop:
			r.halt(t)
			r = begin()
		}
		time.Sleep(s.pause)
	}
	w.with(func() { failPages, failPublish, w.full, deleteBetween = 0, 0, false, -1 })
	time.Sleep(2 * time.Hour)
	r.halt(t)
	for id := range w.alerts {
		if !w.rawHas(id) {
			fail("%s of %v is not in RAW", id, w.alerts[id].start)
		}
	}
	for _, q := range w.queries {
		if from, _ := window(q.Text); !from.IsZero() && from.Before(floor) {
			fail("a query reached down to %v", from)
		}
	}
	return problem
}
