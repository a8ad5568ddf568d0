package obfuscation

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// maxDepth is how deep a row may nest, as in encoding/json.
	maxDepth = 10_000
	// maxSize is how long a masked row may become, in bytes: more fits in no message. Masks can be longer than
	// what they replace, so a row of many short values grows.
	maxSize = 32 << 20
	// maxKept is the largest buffer that is kept for the next row.
	maxKept = 1 << 20
)

// Masker applies rules. Make it with [New]; it is safe for concurrent use.
type Masker struct {
	rules  []rule
	rows   atomic.Uint64
	counts []counts
	pool   sync.Pool
}

type counts struct{ masked, misfits atomic.Uint64 }

// Count is what one rule has done so far.
type Count struct {
	// Path is the rule's, its segments joined by dots.
	Path string
	// Masked is the number of values that the rule masked, wholly or in part.
	Masked uint64
	// Misfits is the number of these that got the default mask because the rule's value is of another type,
	// or that were masked because the row has another shape than the path.
	Misfits uint64
}

// New makes a Masker of at least one rule. An error names the rule by its index, as in "[2].value: …", and says
// what is allowed.
func New(rules []Rule) (*Masker, error) {
	if len(rules) == 0 {
		return nil, fmt.Errorf("no rules; allowed: at least one")
	}
	m := &Masker{counts: make([]counts, len(rules))}
	for i, r := range rules {
		c, err := compile(r)
		if err != nil {
			return nil, fmt.Errorf("[%d].%w", i, err)
		}
		m.rules = append(m.rules, c)
	}
	m.pool.New = func() any { return &scanner{rules: m.rules, tallies: make([]tally, len(m.rules))} }
	return m, nil
}

// Append appends row to dst with every value under a rule masked, and returns the extended slice. Neither row
// nor dst's content is kept or changed.
//
// An error means that row is no valid JSON, nests deeper than 10,000 levels, or would exceed 32 MiB: then dst is
// returned as it was, and row must not go anywhere. The error holds nothing of row but a byte offset.
func (m *Masker) Append(dst, row []byte) ([]byte, error) {
	s, _ := m.pool.Get().(*scanner)
	defer func() {
		if s.release() {
			m.pool.Put(s)
		}
	}()
	out, err := s.mask(dst, row)
	if err != nil {
		return dst, err
	}
	m.rows.Add(1)
	for i := range s.tallies {
		if t := &s.tallies[i]; t.masked > 0 {
			m.counts[i].masked.Add(t.masked)
			m.counts[i].misfits.Add(t.misfits)
		}
	}
	return out, nil
}

// Reaches reports whether a rule masks, wholly or in part, a text, number, true or false that stands at path in
// a row: then no copy of it may be kept beside the row either.
func (m *Masker) Reaches(path ...string) bool {
	for i := range m.rules {
		if m.rules[i].reaches(path) {
			return true
		}
	}
	return false
}

// Rows is the number of rows masked so far.
func (m *Masker) Rows() uint64 { return m.rows.Load() }

// Counts is what each rule has done so far, in the order of the rules.
func (m *Masker) Counts() []Count {
	out := make([]Count, len(m.rules))
	for i := range out {
		out[i] = Count{Path: m.rules[i].name, Masked: m.counts[i].masked.Load(), Misfits: m.counts[i].misfits.Load()}
	}
	return out
}
