package simulator_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"defenderiot/services/simulator"
)

// Whatever is done to the store, its rows are those of a plain list, in the
// standard order: no start first, then by start and id.
func TestStoreIsAList(t *testing.T) {
	starts := []string{`null`, `"x"`, `"2026-11-20T10:00:00Z"`, `"2026-11-20T10:00:00.0Z"`, `"2026-11-20T10:00:01Z"`, `"2026-11-20T09:00:00+01:00"`}
	rapid.Check(t, func(t *rapid.T) {
		graph := simulator.NewGraph(simulator.NewLogin(tenant, ""))
		var model []simulator.Row
		draw := func(label string) simulator.Row {
			return alert(subA, rapid.IntRange(0, 9).Draw(t, label), rapid.SampledFrom(starts).Draw(t, "start"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				var rows []simulator.Row
				for range rapid.IntRange(0, 5).Draw(t, "n") {
					rows = append(rows, draw("id"))
				}
				graph.Add(rows...)
				model = append(model, rows...)
			},
			"delete": func(t *rapid.T) {
				id := draw("id").ID()
				before := len(model)
				model = slices.DeleteFunc(model, func(r simulator.Row) bool { return r.ID() == id })
				if graph.Delete(strings.ToUpper(id)) != (len(model) < before) {
					t.Fatalf("Delete(%s) lies", id)
				}
			},
			"change": func(t *rapid.T) {
				to := draw("id")
				found := false
				for i, r := range model {
					if r.ID() == to.ID() {
						model[i], found = to, true
					}
				}
				if graph.Change(to.ID(), func(simulator.Row) simulator.Row { return to }) != found {
					t.Fatalf("Change(%s) lies", to.ID())
				}
			},
			"": func(t *rapid.T) {
				want := slices.Clone(model)
				slices.SortStableFunc(want, func(a, b simulator.Row) int {
					at, aok := a.Start()
					bt, bok := b.Start()
					if !aok || !bok {
						if aok == bok {
							return cmp.Compare(a.ID(), b.ID())
						}
						return map[bool]int{false: -1, true: 1}[aok]
					}
					return cmp.Or(at.Compare(bt), cmp.Compare(a.ID(), b.ID()))
				})
				if got := graph.Rows(); key(got) != key(want) || graph.Len() != len(want) {
					t.Fatalf("rows\n%s\nwant\n%s", key(got), key(want))
				}
			},
		})
	})
}

// key names rows by id and start; rows that are equal in both are one.
func key(rows []simulator.Row) string {
	var b strings.Builder
	for _, r := range rows {
		start, ok := r.Start()
		fmt.Fprintln(&b, r.ID(), start, ok)
	}
	return b.String()
}

// Readers and writers at once: run with -race.
func TestStoreUnderConcurrency(t *testing.T) {
	a := newAzure(t)
	g := simulator.NewGenerator(simulator.GeneratorOptions{Start: epoch, Spread: time.Hour})
	rows := g.Rows(400)
	a.graph.Add(rows[:100]...)
	client := a.good(t)
	var wg sync.WaitGroup
	for k := range 3 {
		wg.Go(func() {
			for _, row := range rows[100+k*100 : 200+k*100] {
				a.graph.Add(row)
				a.graph.Change(row.ID(), func(r simulator.Row) simulator.Row { return simulator.Changed(r, epoch) })
				if k == 0 {
					a.graph.Delete(row.ID())
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if _, err := resources(t.Context(), client, ask{query: steadyQuery, top: 50}); err != nil {
				t.Error(err)
			}
			a.graph.Stats()
			a.graph.Requests()
		}
	})
	wg.Wait()
	if got := a.graph.Len(); got != 300 {
		t.Errorf("%d rows, want 300", got)
	}
}

// BenchmarkDevo delivers frames of 1.5 KB over mutual TLS on one connection.
func BenchmarkDevo(b *testing.B) {
	e := newEndpoint(b, simulator.DevoOptions{})
	c := e.dial(b)
	var batch strings.Builder
	for n := range 100 {
		batch.WriteString(frame(n))
	}
	b.SetBytes(int64(batch.Len() / 100))
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += 100 {
		c.send(b, batch.String())
	}
	if secure, raw := c.finish(b); secure != nil || raw != nil {
		b.Fatal(secure, raw)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
