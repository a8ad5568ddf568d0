//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is long because the machine may be slow and busy; no test measures time.
const patience = 2 * time.Minute

// transcript collects what a program prints. It is safe for concurrent use.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// lines returns the lines that hold all of the texts.
func (o *transcript) lines(texts ...string) []string {
	var found []string
	for line := range strings.Lines(o.String()) {
		if all(line, texts) {
			found = append(found, line)
		}
	}
	return found
}

func all(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}

// program is a process of ours.
type program struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	stdout transcript
	log    transcript // stderr
	done   chan struct{}
}

// start runs a program in dir; it is killed at the end of the test. environment is added to the test's.
func start(t *testing.T, dir, name string, environment []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, name: name, cmd: exec.Command(filepath.Join(bin, name), args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append(withoutConfiguration(), environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.log
	if err := startOwned(p.cmd); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state says it
	}()
	t.Cleanup(func() {
		p.kill()
		if text := p.log.String(); t.Failed() && text != "" {
			t.Logf("%s (pid %d) printed:\n%s", strings.Join(p.cmd.Args, " "), p.cmd.Process.Pid, tail(text))
		}
	})
	return p
}

// withoutConfiguration is the environment without what would choose a configuration or a kill.
func withoutConfiguration() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONFIG_FILE=") && !strings.HasPrefix(v, "COLLECTOR_KILL_AT=") && !strings.HasPrefix(v, "OTEL_") {
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

// routine are the lines of every pull, which would hide the others.
var routine = regexp.MustCompile(`(?m)^.* INFO .*(Fetching all|No skip_token|Statistics for|The data is up to date|Data collection completed|Elapsed time).*\n`)

// tail is the end of a long log, without what is said at every pull.
func tail(s string) string {
	const most = 12 << 10
	s = routine.ReplaceAllString(s, "")
	if len(s) > most {
		return "[…]" + s[len(s)-most:]
	}
	return s
}

// running reports whether the process still exists.
func (p *program) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process at whatever instruction it is.
func (p *program) kill() {
	if p.running() {
		_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may end by itself in this moment
	}
	<-p.done
}

// exit waits for the process to end by itself within d and returns its exit code.
func (p *program) exit(d time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(d):
		p.t.Fatalf("%s did not end within %v", p.name, d)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks for an orderly stop and demands one.
func (p *program) stop() {
	p.t.Helper()
	p.terminate()
	// Promised are 8 s; this bound only tells a stop from a hang on a slow machine.
	if code := p.exit(20 * time.Second); code != 0 {
		p.t.Errorf("%s ended with %d after SIGTERM, want 0", p.name, code)
	}
}

// terminate sends SIGTERM.
func (p *program) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
}

// killed waits until the process has been killed by its fault point.
func (p *program) killed() {
	p.t.Helper()
	p.exit(patience)
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s was not killed: %v", p.name, p.cmd.ProcessState)
	}
}

// says waits for a line of the log that holds all of the texts.
func (p *program) says(texts ...string) string {
	p.t.Helper()
	var found []string
	eventually(p.t, p.name+" to log "+strings.Join(texts, " … "), func() bool {
		found = p.log.lines(texts...)
		return len(found) > 0
	})
	return found[0]
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// output runs a command to its end.
func output(t *testing.T, dir, name string, args ...string) *program {
	t.Helper()
	p := start(t, dir, name, nil, args...)
	p.exit(patience)
	return p
}

func (p *program) code() int { return p.cmd.ProcessState.ExitCode() }
