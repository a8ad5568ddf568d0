package simulator

import (
	"cmp"
	"slices"
	"sort"

	"defenderiot/services/simulator/kql"
)

// index holds the rows of one type in the order in which alerts are read:
// start time (rows without one first, as "asc" does), then id. A window of
// start times is then a range of the slice and a page a copy from it.
type index struct {
	rows []*entry
}

func compareEntries(a, b *entry) int {
	if a.started != b.started {
		if a.started {
			return 1
		}
		return -1
	}
	if a.started && a.start != b.start {
		return cmp.Compare(a.start, b.start)
	}
	if c := cmp.Compare(a.id, b.id); c != 0 {
		return c
	}
	return cmp.Compare(a.seq, b.seq)
}

// add merges rows in, from the end: live rows are the newest and cost nothing,
// a back-fill costs one pass.
func (x *index) add(rows []*entry) {
	slices.SortFunc(rows, compareEntries)
	i, j := len(x.rows)-1, len(rows)-1
	x.rows = append(x.rows, rows...)
	for k := len(x.rows) - 1; j >= 0; k-- {
		if i >= 0 && compareEntries(x.rows[i], rows[j]) > 0 {
			x.rows[k] = x.rows[i]
			i--
			continue
		}
		x.rows[k] = rows[j]
		j--
	}
}

func (x *index) remove(e *entry) {
	if i, ok := slices.BinarySearchFunc(x.rows, e, compareEntries); ok {
		x.rows = slices.Delete(x.rows, i, i+1)
	}
}

// window returns the bounds of the rows whose start is in [from, to).
func (x *index) window(from, to kql.Ticks) (lo, hi int) {
	at := func(t kql.Ticks) int {
		return sort.Search(len(x.rows), func(i int) bool { return x.rows[i].started && x.rows[i].start >= t })
	}
	return at(from), at(to)
}

// unstarted returns how many rows have no start; they are the first ones.
func (x *index) unstarted() int {
	return sort.Search(len(x.rows), func(i int) bool { return x.rows[i].started })
}
