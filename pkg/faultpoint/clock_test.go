//go:build faultpoints

package faultpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestNowFollowsTheFile(t *testing.T) {
	clockFile = filepath.Join(t.TempDir(), "clock")
	defer func() { clockFile = "" }()
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		if err := os.WriteFile(clockFile, []byte(off.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := time.Until(Now()); (got - off).Abs() > time.Minute {
			t.Errorf("the clock is off by %v, want %v", got, off)
		}
	}
}
