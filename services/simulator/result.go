package simulator

import (
	"strings"
	"sync"

	"defenderiot/services/simulator/kql"
	"defenderiot/services/simulator/rawjson"
)

// maxResults is how many result sets are kept for the next pages.
const maxResults = 8

// selection is a part of a query's rows, ready to be sent.
type selection struct {
	total int
	rows  [][]byte
	paged bool // a skip token may follow: id is in the output, no take
}

// resultCache keeps the rows of evaluated queries until the store changes, so
// that a page costs no evaluation.
type resultCache struct {
	mu       sync.Mutex
	revision uint64
	sets     map[string]resultSet
}

// resultSet is one of the two.
type resultSet struct {
	entries []*entry
	result  *kql.Result
}

func (c *resultCache) get(key string, revision uint64) (resultSet, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision != revision {
		return resultSet{}, false
	}
	set, ok := c.sets[key]
	return set, ok
}

func (c *resultCache) put(key string, revision uint64, set resultSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision != revision || c.sets == nil || len(c.sets) >= maxResults {
		c.revision, c.sets = revision, map[string]resultSet{}
	}
	c.sets[key] = set
}

// selectRows answers rows [from, from+n) of a query within a scope.
func (g *Graph) selectRows(text string, q *kql.Query, in scope, from, n int) selection {
	revision := g.state()
	p, planned := planOf(q)
	if planned {
		if sel, ok := g.indexed(p, in, from, n); ok {
			return sel
		}
	}
	key := in.key + "\x00" + text
	set, ok := g.results.get(key, revision)
	if !ok || q.Volatile || !strings.EqualFold(q.Table, alertTable) {
		if planned {
			set = resultSet{entries: g.planned(p, in)}
		} else {
			set = resultSet{result: g.evaluated(q, in)}
		}
		g.results.put(key, revision, set)
	}
	if set.result == nil {
		return pageOf(set.entries, from, n)
	}
	return recordsOf(set.result, from, n)
}

// indexed answers from the index alone, which it can if the scope hides no row.
func (g *Graph) indexed(p plan, in scope, from, n int) (sel selection, ok bool) {
	g.view(p.kind, func(x *index, subs map[string]int) {
		if ok = in.covers(subs); ok && x != nil {
			sel = pageOf(p.rangeOf(x), from, n)
		}
	})
	sel.paged = true
	return sel, ok
}

func (p plan) rangeOf(x *index) []*entry {
	lo, hi := 0, x.unstarted()
	if !p.null {
		lo, hi = x.window(p.from, p.to)
	}
	return x.rows[lo:max(lo, hi)]
}

func (g *Graph) planned(p plan, in scope) []*entry {
	var rows []*entry
	g.view(p.kind, func(x *index, _ map[string]int) {
		if x == nil {
			return
		}
		for _, e := range p.rangeOf(x) {
			if in.has(e.subscription) {
				rows = append(rows, e)
			}
		}
	})
	return rows
}

func (g *Graph) evaluated(q *kql.Query, in scope) *kql.Result {
	var rows []*entry
	if strings.EqualFold(q.Table, containerTable) {
		rows = g.subs.containers(in)
	} else {
		rows = g.entries()
	}
	return q.Run(filtered(rows, in), kql.TicksOf(g.Now()))
}

func pageOf(entries []*entry, from, n int) selection {
	sel := selection{total: len(entries), paged: true}
	lo := min(from, len(entries))
	hi := min(lo+n, len(entries))
	sel.rows = make([][]byte, 0, hi-lo)
	for _, e := range entries[lo:hi] {
		sel.rows = append(sel.rows, e.json)
	}
	return sel
}

func recordsOf(r *kql.Result, from, n int) selection {
	sel := selection{total: len(r.Records), paged: !r.Limited && r.HasColumn("id", true)}
	lo := min(from, len(r.Records))
	hi := min(lo+n, len(r.Records))
	for _, rec := range r.Records[lo:hi] {
		sel.rows = append(sel.rows, render(r, rec))
	}
	return sel
}

// render prints a record. Without project and extend it is the row's own text.
func render(r *kql.Result, rec kql.Record) []byte {
	e, isEntry := rec.Row.(*entry)
	if r.Columns == nil && len(r.Extended) == 0 && isEntry {
		return e.json
	}
	var b []byte
	member := func(name string, appendValue func([]byte) []byte) {
		if b == nil {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = kql.StringValue(name).AppendJSON(b)
		b = append(b, ':')
		b = appendValue(b)
	}
	if r.Columns == nil && isEntry {
		rawjson.Members(e.json, func(name, value []byte) bool {
			if _, replaced := rec.Added[string(name)]; !replaced {
				member(string(name), func(b []byte) []byte { return append(b, value...) })
			}
			return true
		})
	}
	names := r.Columns
	if names == nil {
		names = r.Extended
	}
	for _, name := range names {
		member(name, rec.Added[name].AppendJSON)
	}
	if b == nil {
		return []byte("{}")
	}
	return append(b, '}')
}
