package fetcher

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// constant is an Azure where an alert starts each step, for ever, and every one was seen before. It keeps nothing in
// memory, so it may have a million of them.
type constant struct {
	*process
	step     time.Duration
	begin    time.Time
	requests atomic.Int64
}

// index is the number of the first alert that starts at t or later.
func (c *constant) index(t time.Time) int64 {
	return int64(math.Ceil(float64(t.Sub(c.begin)) / float64(c.step)))
}

func (c *constant) Page(ctx context.Context, q resourcegraph.Query) (*resourcegraph.Page, error) {
	c.requests.Add(1)
	time.Sleep(100 * time.Millisecond)
	now := time.Now().UTC()
	p := &resourcegraph.Page{Date: now.Truncate(time.Second), Received: now}
	if strings.Contains(q.Text, "isnull(") {
		return p, ctx.Err()
	}
	from, to := window(q.Text)
	if to.IsZero() || to.After(now) {
		to = now
	}
	first, end := max(c.index(from), 0), c.index(to)
	p.Total = max(0, end-first)
	var offset int64
	if q.SkipToken != "" {
		if _, err := fmt.Sscan(q.SkipToken, &offset); err != nil {
			return nil, err
		}
	}
	for i := first + offset; i < min(end, first+offset+int64(q.Top)); i++ {
		p.Rows = append(p.Rows, resourcegraph.Row{ID: fmt.Sprintf("/alert/%d", i), Start: c.begin.Add(time.Duration(i) * c.step), Raw: []byte(`{}`)})
	}
	p.Count = int64(len(p.Rows))
	if next := offset + p.Count; next < p.Total {
		p.SkipToken = fmt.Sprint(next)
	}
	return p, ctx.Err()
}

func (c *constant) Subscriptions(ctx context.Context, subscriptions, groups []string) ([]string, error) {
	c.requests.Add(1)
	return c.process.Subscriptions(ctx, subscriptions, groups)
}

func (c *constant) Lookup(_ context.Context, _ string, subjects []string) (map[string]bus.Stored, error) {
	known := make(map[string]bus.Stored, len(subjects))
	for _, s := range subjects {
		known[s] = bus.Stored{Sequence: 1, Data: proto.Claim{RawSequence: 1}.Encode()}
	}
	return known, nil
}

// What a day costs in requests to Resource Graph, at the defaults: docs/scaling.md states the figures, which
// `go test -run TestRequestsADay -v` prints.
func TestRequestsADay(t *testing.T) {
	if testing.Short() {
		t.Skip("days of simulated time: run without -short")
	}
	const depth = 90 * 24 * time.Hour
	for _, tt := range []struct{ alerts, stated int64 }{{1_000, 1808}, {100_000, 2033}, {1_000_000, 3936}} {
		t.Run(fmt.Sprint(tt.alerts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				began := time.Now()
				floor := began.Add(-2 * depth)
				c := &constant{process: w.process(), step: depth / time.Duration(tt.alerts), begin: floor}
				swept := (&Fetcher{source: testSource}).ownMoment(began)
				record := proto.Checkpoint{
					PersistenceVersion: proto.PersistenceVersion, Generation: 1, StartTime: &floor, Floor: floor, LastEventTime: began,
					Deduplication: DeduplicateAlert, Subscriptions: []string{"sub-1"}, SweptAt: &swept,
				}
				value, err := record.Encode()
				if err != nil {
					t.Fatal(err)
				}
				w.keys[proto.RecordKey(testSource)] = &entry{value: value, revision: 1}
				w.revision = 1
				r := w.start(t, func(o *Options) {
					o.Graph, o.Bus = c, c
					o.Service.Start, o.Service.Refresh = floor, 10*time.Minute
				})
				w.settle(time.Hour) // what the start reads
				before := c.requests.Load()
				w.settle(24 * time.Hour)
				got := c.requests.Load() - before
				t.Logf("%d alerts in 90 days: %d requests a day", tt.alerts, got)
				if math.Abs(float64(got-tt.stated)) > 0.02*float64(tt.stated) {
					t.Errorf("%d requests a day, stated are %d", got, tt.stated)
				}
				if len(w.raw) > 0 {
					t.Errorf("%d rows were new", len(w.raw))
				}
				r.halt(t)
			})
		})
	}
}
