package proto_test

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"defenderiot/proto"
)

// universe are the sequences that the model knows: both ends, where adding one wraps around, and a stretch
// between them.
var universe = func() []uint64 {
	var all []uint64
	for i := range uint64(24) {
		all = append(all, i, 1<<32+i, math.MaxUint64-i)
	}
	slices.Sort(all)
	return all
}()

func anySequence() *rapid.Generator[uint64] { return rapid.SampledFrom(universe) }

// TestSequencesAgainstAMap drives the set and a map side by side.
func TestSequencesAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set proto.Sequences
		model := map[uint64]bool{}
		drawRange := func(t *rapid.T) proto.Range {
			// At most one stretch long, so that the map can follow; inverted ones come up too.
			first := anySequence().Draw(t, "first")
			if first > 0 && rapid.IntRange(0, 9).Draw(t, "inverted") == 0 {
				return proto.Range{First: first, Last: first - 1}
			}
			last := first + min(rapid.Uint64Range(0, 30).Draw(t, "length"), math.MaxUint64-first)
			return proto.Range{First: first, Last: last}
		}
		each := func(r proto.Range, do func(uint64)) {
			for s := r.First; s <= r.Last; s++ {
				do(s)
				if s == math.MaxUint64 {
					return // one more would be 0
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"AddAll": func(t *rapid.T) {
				seqs := rapid.SliceOfN(anySequence(), 0, 20).Draw(t, "sequences")
				kept := slices.Clone(seqs)
				set.AddAll(seqs)
				for _, s := range seqs {
					model[s] = true
				}
				if !slices.Equal(seqs, kept) {
					t.Fatalf("the caller's list was reordered: %v", seqs)
				}
			},
			"AddRange": func(t *rapid.T) {
				r := drawRange(t)
				set.AddRange(r)
				each(r, func(s uint64) { model[s] = true })
			},
			"Remove": func(t *rapid.T) {
				seqs := rapid.SliceOfN(anySequence(), 0, 20).Draw(t, "sequences")
				set.Remove(seqs)
				for _, s := range seqs {
					delete(model, s)
				}
			},
			"RemoveRange": func(t *rapid.T) {
				r := drawRange(t)
				set.RemoveRange(r)
				each(r, func(s uint64) { delete(model, s) })
			},
			"AddSet": func(t *rapid.T) {
				other := proto.SequencesOf(rapid.SliceOfN(anySequence(), 0, 20).Draw(t, "sequences")...)
				before := other.Clone()
				set.AddSet(other)
				for _, r := range before.Ranges() {
					each(r, func(s uint64) { model[s] = true })
				}
				if !slices.Equal(other.Ranges(), before.Ranges()) {
					t.Fatalf("AddSet changed its argument to %v", other.Ranges())
				}
			},
			"Clone": func(t *rapid.T) {
				kept := slices.Clone(set.Ranges())
				clone := set.Clone()
				clone.AddRange(drawRange(t))
				clone.RemoveRange(drawRange(t))
				if !slices.Equal(set.Ranges(), kept) {
					t.Fatalf("changing a clone changed the set to %v", set.Ranges())
				}
			},
			"encode and decode": func(t *rapid.T) {
				var b bytes.Buffer
				if err := set.EncodeMsgpack(msgpack.NewEncoder(&b)); err != nil {
					t.Fatal(err)
				}
				back := proto.SequencesOf(7) // what was there is replaced
				if err := back.DecodeMsgpack(msgpack.NewDecoder(&b)); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(back.Ranges(), set.Ranges()) {
					t.Fatalf("%v came back as %v", set.Ranges(), back.Ranges())
				}
				set = back
			},
			"": func(t *rapid.T) { compare(t, &set, model) },
		})
	})
}

func compare(t *rapid.T, set *proto.Sequences, model map[uint64]bool) {
	t.Helper()
	if set.Len() != len(model) {
		t.Fatalf("Len %d, want %d: %v", set.Len(), len(model), set.Ranges())
	}
	for _, s := range append(slices.Collect(maps.Keys(model)), universe...) {
		if set.Contains(s) != model[s] {
			t.Fatalf("Contains(%d) = %v: %v", s, set.Contains(s), set.Ranges())
		}
	}
	checkShape(t, set)
}

func checkShape(t interface{ Fatalf(string, ...any) }, set *proto.Sequences) {
	for i, r := range set.Ranges() {
		if r.First > r.Last {
			t.Fatalf("inverted range in %v", set.Ranges())
		}
		if i > 0 {
			if before := set.Ranges()[i-1]; before.Last >= r.First || before.Last+1 == r.First {
				t.Fatalf("ranges out of order, overlapping or adjacent: %v", set.Ranges())
			}
		}
	}
}

func TestSequencesAtTheEnds(t *testing.T) {
	const end = math.MaxUint64
	for name, c := range map[string]struct {
		ranges []proto.Range
		want   []proto.Range
		length int
	}{
		"the last twice":      {[]proto.Range{{end, end}, {end, end}}, []proto.Range{{end, end}}, 1},
		"before the last":     {[]proto.Range{{end, end}, {end - 1, end - 1}}, []proto.Range{{end - 1, end}}, 2},
		"the first beside it": {[]proto.Range{{end, end}, {0, 0}}, []proto.Range{{0, 0}, {end, end}}, 2},
		"over the last":       {[]proto.Range{{end - 3, end - 2}, {5, end}}, []proto.Range{{5, end}}, math.MaxInt},
		"everything":          {[]proto.Range{{1, 1}, {end, end}, {0, end}}, []proto.Range{{0, end}}, math.MaxInt},
		"half":                {[]proto.Range{{0, math.MaxInt - 1}}, []proto.Range{{0, math.MaxInt - 1}}, math.MaxInt},
		"two halves":          {[]proto.Range{{0, math.MaxInt - 2}, {end - 9, end}}, []proto.Range{{0, math.MaxInt - 2}, {end - 9, end}}, math.MaxInt},
		"inverted":            {[]proto.Range{{end, 0}, {2, 1}}, nil, 0},
	} {
		var s proto.Sequences
		for _, r := range c.ranges {
			s.AddRange(r)
		}
		if !slices.Equal(s.Ranges(), c.want) || s.Len() != c.length {
			t.Errorf("%s: %v, Len %d, want %v, %d", name, s.Ranges(), s.Len(), c.want, c.length)
		}
	}
	twice := proto.SequencesOf(end, end, end-1, 0, 0)
	if !slices.Equal(twice.Ranges(), []proto.Range{{0, 0}, {end - 1, end}}) {
		t.Errorf("AddAll: %v", twice.Ranges())
	}
	var all proto.Sequences
	all.AddRange(proto.Range{First: 0, Last: end})
	all.RemoveRange(proto.Range{First: end, Last: end})
	all.RemoveRange(proto.Range{First: 0, Last: 0})
	if !slices.Equal(all.Ranges(), []proto.Range{{1, end - 1}}) || all.Contains(0) || all.Contains(end) {
		t.Errorf("RemoveRange: %v", all.Ranges())
	}
	all.RemoveRange(proto.Range{First: 0, Last: end})
	if all.Len() != 0 || len(all.Ranges()) != 0 {
		t.Errorf("after removing everything: %v", all.Ranges())
	}
}

func TestSequencesRefuse(t *testing.T) {
	for name, list := range map[string]any{
		"an odd number": []uint64{1, 2, 3}, "an inverted range": []uint64{2, 1}, "nil": nil, "text": []string{"a", "b"}, "a number": 5,
	} {
		data, err := msgpack.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		var s proto.Sequences
		if err := s.DecodeMsgpack(msgpack.NewDecoder(bytes.NewReader(data))); err == nil {
			t.Errorf("%s was accepted: %v", name, s.Ranges())
		}
	}
}
