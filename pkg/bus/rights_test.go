package bus

import "testing"

func TestGranted(t *testing.T) {
	for _, tc := range []struct {
		allow, deny []string
		want        bool
	}{
		{nil, nil, true},
		{nil, []string{"x.>"}, true},
		{nil, []string{"a.>"}, false},
		{nil, []string{"a.b.c"}, false},
		{[]string{"a.>"}, nil, true},
		{[]string{"a.>"}, []string{"a.b.>"}, false},
		{[]string{"a.c"}, nil, false},
	} {
		if got := granted("a.b.*", tc.allow, tc.deny); got != tc.want {
			t.Errorf("allow %v, deny %v: %v", tc.allow, tc.deny, got)
		}
	}
}
