package fetcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

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
		w.settle(10 * time.Minute)
		w.with(func() {
			if !w.rawHas("/a") || w.rawHas("/other") {
				t.Error("scope")
			}
			w.readable = []string{"sub-1", "sub-2"}
		})
		if r.logs.count("unreadable=sub-2") != 1 {
			t.Error("no warning about sub-2")
		}
		w.settle(70 * time.Minute)
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
		w.settle(4 * time.Hour)
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
		w.settle(5 * time.Minute)
		w.with(func() {
			if c := w.checkpoint(); !c.LastEventTime.Equal(c.Floor) {
				t.Error("the position moved although a part of the scope was not read")
			}
			failing = false
		})
		w.settle(2 * time.Minute)
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
		w.settle(10 * time.Minute)
		w.with(func() {
			if c := w.checkpoint(); c.LastEventTime.After(stuck) || !c.LastEventTime.After(begin) {
				t.Errorf("position %v with a failing window at %v", c.LastEventTime, stuck)
			}
			w.put("/new", time.Now())
		})
		w.settle(2 * time.Minute)
		w.with(func() {
			if !w.rawHas("/new") {
				t.Error("the back-fill starves the steady pull")
			}
			stuck = time.Time{}
		})
		w.settle(10 * time.Minute)
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

// slowSubscriptions is an Azure that does not answer which subscriptions are readable.
type slowSubscriptions struct{ Graph }

func (slowSubscriptions) Subscriptions(ctx context.Context, _, _ []string) ([]string, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("asking Azure Resource Graph: %w", ctx.Err())
}

func TestAStopInTheCoverageCheckIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		w.settle(time.Minute) // the first record needs an answer
		r.halt(t)
		r = w.start(t, func(o *Options) { o.Graph = slowSubscriptions{o.Graph} })
		w.settle(time.Minute)
		r.halt(t)
		if n := r.logs.count("ERROR"); n != 0 {
			t.Errorf("%d errors:\n%s", n, strings.Join(r.logs.all(), "\n"))
		}
	})
}
