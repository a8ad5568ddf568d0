//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/collector/e2e/internal/child"
)

// race has our programs built with the race detector. They are several times as slow then and as large, so the bounds
// for recovery are wider and those for memory do not hold; what must arrive does, and a report of a race fails the test.
var race = os.Getenv("E2E_RACE") != ""

// patience bounds every wait. It is long because the machine may be slow and busy; no test measures time.
var patience = slower(2 * time.Minute)

func slower(d time.Duration) time.Duration {
	if race {
		return 4 * d
	}
	return d
}

// program is a process of ours.
type program struct {
	*child.Program
	t *testing.T
}

// start runs one of the programs in dir; it is killed at the end of the test. environment is added to the test's.
func start(t *testing.T, dir, name string, environment []string, args ...string) *program {
	t.Helper()
	return &program{child.Start(t, dir, filepath.Join(bin, name), environment, args...), t}
}

// stop asks for an orderly stop and demands one.
func (p *program) stop() {
	p.t.Helper()
	p.terminate()
	// Promised are 8 s; this bound only tells a stop from a hang on a slow machine.
	if code := p.Exit(20 * time.Second); code != 0 {
		p.t.Errorf("%s ended with %d after SIGTERM, want 0", p.Name, code)
	}
}

// terminate sends SIGTERM.
func (p *program) terminate() {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stop %s: %v", p.Name, err)
	}
}

// killed waits until the process has been killed by its fault point.
func (p *program) killed() {
	p.t.Helper()
	p.Exit(patience)
	if status, ok := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s was not killed: %v", p.Name, p.Cmd.ProcessState)
	}
}

// says waits for a line of the log that holds all of the texts.
func (p *program) says(texts ...string) string {
	p.t.Helper()
	var found []string
	eventually(p.t, p.Name+" to log "+strings.Join(texts, " … "), func() bool {
		found = p.Log.Lines(texts...)
		return len(found) > 0
	})
	return found[0]
}

// long leaves a test out with -short: others try nearly the same, and all of them together take too long to wait for.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long: run without -short")
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	child.Eventually(t, what, patience, 50*time.Millisecond, condition)
}

// output runs a command to its end.
func output(t *testing.T, dir, name string, args ...string) *program {
	t.Helper()
	p := start(t, dir, name, nil, args...)
	p.Exit(patience)
	return p
}
