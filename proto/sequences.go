package proto

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/vmihailenco/msgpack/v5"
)

// Range is a closed interval of stream sequences.
type Range struct{ First, Last uint64 }

// Sequences is a set of stream sequences as sorted, disjoint, non-adjacent ranges: what is delivered in
// order costs one range. The zero value is the empty set. It is not safe for concurrent use.
type Sequences struct{ ranges []Range }

// SequencesOf makes a set of the given sequences, in any order.
func SequencesOf(seqs ...uint64) Sequences {
	var s Sequences
	s.AddAll(seqs)
	return s
}

// Ranges returns the set's ranges in order; the caller must not change them.
func (s *Sequences) Ranges() []Range { return s.ranges }

// Len counts the sequences in the set; it stops at math.MaxInt.
func (s *Sequences) Len() int {
	n := 0
	for _, r := range s.ranges {
		more := r.Last - r.First // one less than r holds, which may be 2^64
		if more >= uint64(math.MaxInt-n) {
			return math.MaxInt
		}
		n += int(more) + 1
	}
	return n
}

// Contains reports whether seq is in the set.
func (s *Sequences) Contains(seq uint64) bool {
	i := s.search(seq)
	return i < len(s.ranges) && s.ranges[i].First <= seq
}

// search finds the first range that ends at or after seq.
func (s *Sequences) search(seq uint64) int {
	return sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Last >= seq })
}

// AddAll adds sequences in any order.
func (s *Sequences) AddAll(seqs []uint64) {
	if len(seqs) == 0 {
		return
	}
	sorted := slices.Clone(seqs)
	slices.Sort(sorted)
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1]-sorted[j] <= 1 {
			j++
		}
		s.AddRange(Range{sorted[i], sorted[j]})
		i = j + 1
	}
}

// AddRange adds all of r; an inverted range is empty.
func (s *Sequences) AddRange(r Range) {
	if r.First > r.Last {
		return
	}
	// Everything from i up to j touches or overlaps r and becomes one range with it. before and after are
	// r's neighbours, kept from wrapping around at both ends.
	before, after := r.First-min(r.First, 1), r.Last+min(math.MaxUint64-r.Last, 1)
	i := s.search(before)
	j := i
	for j < len(s.ranges) && s.ranges[j].First <= after {
		r.First = min(r.First, s.ranges[j].First)
		r.Last = max(r.Last, s.ranges[j].Last)
		j++
	}
	s.ranges = slices.Replace(s.ranges, i, j, r)
}

// Remove takes sequences out of the set.
func (s *Sequences) Remove(seqs []uint64) {
	for _, q := range seqs {
		s.RemoveRange(Range{q, q})
	}
}

// RemoveRange takes all of r out of the set.
func (s *Sequences) RemoveRange(r Range) {
	if r.First > r.Last {
		return
	}
	i := s.search(r.First)
	j := i
	var keep []Range
	for j < len(s.ranges) && s.ranges[j].First <= r.Last {
		if s.ranges[j].First < r.First {
			keep = append(keep, Range{s.ranges[j].First, r.First - 1})
		}
		if s.ranges[j].Last > r.Last {
			keep = append(keep, Range{r.Last + 1, s.ranges[j].Last})
		}
		j++
	}
	s.ranges = slices.Replace(s.ranges, i, j, keep...)
}

// AddSet adds every sequence of other.
func (s *Sequences) AddSet(other Sequences) {
	for _, r := range other.ranges {
		s.AddRange(r)
	}
}

// Clone returns a copy that shares nothing.
func (s *Sequences) Clone() Sequences { return Sequences{slices.Clone(s.ranges)} }

// EncodeMsgpack writes the set as a flat list first, last, first, last, …
func (s *Sequences) EncodeMsgpack(enc *msgpack.Encoder) error {
	if err := enc.EncodeArrayLen(2 * len(s.ranges)); err != nil {
		return err
	}
	for _, r := range s.ranges {
		if err := enc.EncodeUint(r.First); err != nil {
			return err
		}
		if err := enc.EncodeUint(r.Last); err != nil {
			return err
		}
	}
	return nil
}

// DecodeMsgpack reads what EncodeMsgpack wrote; ranges in any order are accepted, inverted ones are an
// error.
func (s *Sequences) DecodeMsgpack(dec *msgpack.Decoder) error {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n%2 != 0 {
		return fmt.Errorf("a list of %d numbers is no list of ranges", n)
	}
	s.ranges = nil
	for i := 0; i < n; i += 2 {
		var r Range
		if r.First, err = dec.DecodeUint64(); err != nil {
			return err
		}
		if r.Last, err = dec.DecodeUint64(); err != nil {
			return err
		}
		if r.First > r.Last {
			return fmt.Errorf("inverted range %d-%d", r.First, r.Last)
		}
		s.AddRange(r)
	}
	return nil
}
