package seen_test

import (
	"testing"

	"defenderiot/pkg/seen"
)

func TestSet(t *testing.T) {
	var s seen.Set[int]
	if s.Has(0) || s.Len() != 0 {
		t.Error("the zero value is not empty")
	}
	const n = 5*seen.Keep + 1
	for i := range n {
		s.Add(i)
		if !s.Has(i) {
			t.Fatalf("%d is not remembered when it was just added", i)
		}
		if s.Len() > 2*seen.Keep {
			t.Fatalf("%d keys are remembered after %d", s.Len(), i)
		}
	}
	for i := n - seen.Keep; i < n; i++ {
		if !s.Has(i) {
			t.Fatalf("%d, one of the newest, is forgotten", i)
		}
	}
	if s.Has(0) {
		t.Error("the oldest is still there")
	}
}
