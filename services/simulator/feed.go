package simulator

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	feedTick = 50 * time.Millisecond
	feedBack = 1024 // alerts that Feed may come back to
)

// Feed adds alerts to a graph as they happen, perSecond on average, each with
// a start time of the graph's present, until ctx ends. It returns the number
// of alerts added; changed and repeated ones are not counted.
func (g *Generator) Feed(ctx context.Context, graph *Graph, perSecond float64) int {
	ticker := time.NewTicker(feedTick)
	defer ticker.Stop()
	began := time.Now()
	rng := rand.New(rand.NewPCG(g.opts.Seed, 0xfeed))
	var past []Row
	added := 0
	for {
		for due := int(time.Since(began).Seconds() * perSecond); added < due && ctx.Err() == nil; {
			n := min(due-added, 1000)
			past = g.feed(graph, rng, past, n)
			added += n
		}
		select {
		case <-ctx.Done():
			return added
		case <-ticker.C:
		}
	}
}

// feed adds n alerts and returns those that may be changed later.
func (g *Generator) feed(graph *Graph, rng *rand.Rand, past []Row, n int) []Row {
	every := func(nth int) bool { return nth > 0 && rng.IntN(nth) == 0 }
	fresh := make([]Row, 0, n)
	for range n {
		row := g.NextAt(graph.Now().Add(-time.Duration(rng.Int64N(int64(time.Second)))))
		if every(g.opts.LateEvery) {
			graph.AddLate(row, graph.Now().Add(g.opts.LateBy))
			continue
		}
		fresh = append(fresh, row)
		if len(past) > 0 && every(g.opts.RepeatEvery) {
			fresh = append(fresh, past[rng.IntN(len(past))])
		}
		if len(past) > 0 && every(g.opts.ChangeEvery) {
			now := graph.Now()
			graph.Change(past[rng.IntN(len(past))].ID(), func(r Row) Row { return Changed(r, now) })
		}
	}
	graph.Add(fresh...)
	past = append(past, fresh...)
	return past[max(0, len(past)-feedBack):]
}
