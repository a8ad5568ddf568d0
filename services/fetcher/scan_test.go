package fetcher

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

func TestShortWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-10 * time.Hour).Truncate(time.Second)
		w.putMany(50, begin, 10*time.Minute)
		w.hidden["/bulk/00020"] = true
		r := w.start(t, nil)
		w.settle(5 * time.Minute)
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
		w.settle(40 * time.Minute)
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
		w.settle(50 * time.Second)
		w.with(func() {
			if n := len(w.queries); n > 2*repairScans+200 {
				t.Errorf("%d queries for one pull", n)
			}
			if len(w.checkpoint().Rescan) == 0 || len(w.checkpoint().Rescan) > maxRescan || !w.rawHas("/a") {
				t.Errorf("%d windows", len(w.checkpoint().Rescan))
			}
			w.truncated = false
		})
		w.settle(time.Hour)
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
		w.settle(30 * time.Second)
		w.with(func() {
			if !w.rawHas("/bulk/01000") || len(w.raw) != 1500 {
				t.Errorf("%d rows", len(w.raw))
			}
		})
		r.halt(t)
	})
}

// While RAW is full a scan stands still for hours. What comes and goes meanwhile must not shift rows past
// the pages that are still to be read.
func TestTokenThatGrewOldIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		begin := time.Now().Add(-20 * time.Hour)
		w.putMany(3500, begin, time.Second)
		w.publish = func([]bus.Message) error {
			w.publish = nil
			w.full = true
			return nil
		}
		w.onRecord = func(c *proto.Checkpoint) {
			for i := range 3500 {
				a := w.alerts[fmt.Sprintf("/bulk/%05d", i)]
				if a != nil && a.start.Before(c.LastEventTime) && !w.rawHas(a.id) {
					t.Errorf("the position passed %s", a.id)
				}
			}
		}
		r := w.start(t, nil)
		w.settle(2 * time.Hour)
		w.with(func() {
			delete(w.alerts, "/bulk/00003")
			w.put("/later", begin.Add(5000*time.Second)) // the total stays the same
			w.full = false
		})
		w.settle(10 * time.Second)
		w.with(func() {
			if len(w.raw) != 3501 {
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
		w.settle(40 * time.Second)
		w.with(func() {
			if len(w.raw) != 600 {
				t.Errorf("%d rows", len(w.raw))
			}
			w.alerts["/bulk/00300"].size = 20_000 // larger than an answer may be, alone
			w.forget()
		})
		r.halt(t)
		r = w.start(t, func(o *Options) { o.Service.Start = begin.Add(-time.Hour) })
		w.settle(10 * time.Minute)
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
		w.settle(30 * time.Second)
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
