// Package child runs the programs of the end-to-end tests: each is owned by a test, and none outlives the test
// process.
package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is a process of ours.
type Program struct {
	Name   string
	Cmd    *exec.Cmd
	Stdout Transcript
	Log    Transcript // stderr
	t      *testing.T
	done   chan struct{}
}

// raceReport begins what the race detector prints.
const raceReport = "WARNING: DATA RACE"

// Start runs the program at path in dir; it is killed at the end of the test. environment is added to the test's.
func Start(t *testing.T, dir, path string, environment []string, args ...string) *Program {
	t.Helper()
	p := &Program{Name: filepath.Base(path), Cmd: exec.Command(path, args...), t: t, done: make(chan struct{})}
	p.Cmd.Dir = dir
	p.Cmd.Env = append(withoutConfiguration(), environment...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Log
	if err := startOwned(p.Cmd); err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.Cmd.Wait() // the state says it
	}()
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.Log.String(), raceReport) {
			t.Errorf("%s: the race detector has found something", p.Name)
		}
		if text := p.Log.String(); t.Failed() && text != "" {
			t.Logf("%s (pid %d) printed:\n%s", strings.Join(p.Cmd.Args, " "), p.Cmd.Process.Pid, tail(text))
		}
	})
	return p
}

// withoutConfiguration is the environment without what would choose a configuration or a kill.
func withoutConfiguration() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONFIG_FILE=") && !strings.HasPrefix(v, "COLLECTOR_KILL_AT=") && !strings.HasPrefix(v, "COLLECTOR_CLOCK=") && !strings.HasPrefix(v, "OTEL_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// launcher starts all processes on one thread that lives as long as the test process, because the system
// ends a child together with the thread that made it; see startOwned.
var launcher = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startOwned(cmd *exec.Cmd) error {
	dieWithParent(cmd)
	result := make(chan error)
	launcher() <- func() { result <- cmd.Start() }
	return <-result
}

// Running reports whether the process still exists.
func (p *Program) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to a process that may have ended by itself in this moment.
func (p *Program) Signal(s os.Signal) {
	if p.Running() {
		_ = p.Cmd.Process.Signal(s)
	}
}

// Kill ends the process at whatever instruction it is.
func (p *Program) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Exit waits for the process to end within d and returns its exit code; -1 where a signal ended it.
func (p *Program) Exit(d time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(d):
		p.t.Fatalf("%s did not end within %v", p.Name, d)
	}
	return p.Code()
}

// Code is the exit code of a process that has ended.
func (p *Program) Code() int { return p.Cmd.ProcessState.ExitCode() }

// Eventually waits at most patience for a condition, asking again after each pause.
func Eventually(t *testing.T, what string, patience, pause time.Duration, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
