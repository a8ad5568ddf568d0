package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnfinishedBirthIsNoCopy: a file that a start could not finish says nothing; one of another file is a copy.
func TestUnfinishedBirthIsNoCopy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, birthFile)
	is := func(want bool) {
		t.Helper()
		if got, err := copied(dir); err != nil || got != want {
			t.Errorf("copied: %v, %v, want %v", got, err, want)
		}
	}
	is(false) // and marks it
	if born, err := birth(path); err != nil || born == "" {
		t.Skipf("no birth times here: %q, %v", born, err)
	}
	is(false)
	for _, unfinished := range []string{"", "\n"} {
		if err := os.WriteFile(path, []byte(unfinished), 0o600); err != nil {
			t.Fatal(err)
		}
		is(false)
		is(false)
	}
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil { // of a start that ended
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("1.000000001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	is(true)
	if err := mark(dir); err != nil {
		t.Fatal(err)
	}
	is(false)
}
