//go:build receivers && linux

package receivers

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is long because the machine may be slow and busy; no test measures time.
const patience = 3 * time.Minute

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

// program is a process of ours.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout transcript
	log    transcript // stderr
	done   chan struct{}
}

// start runs a program in dir; it is killed at the end of the test. environment is added to the test's.
func start(t *testing.T, dir, path string, environment []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	for _, v := range os.Environ() {
		// Without what would choose another configuration.
		if !strings.HasPrefix(v, "CONFIG_FILE=") && !strings.HasPrefix(v, "OTEL_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(p.cmd.Env, environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.log
	// Nothing outlives the test process, also when its own time-out ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	launcher() <- func() { result <- p.cmd.Start() }
	if err := <-result; err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state says it
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		if text := p.log.String(); t.Failed() && text != "" {
			t.Logf("%s printed:\n%s", strings.Join(p.cmd.Args, " "), text[max(0, len(text)-6000):])
		}
	})
	return p
}

// launcher starts all processes on one thread that lives as long as the test process, because the system
// ends a child together with the thread that made it.
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

// running reports whether the process still exists.
func (p *program) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal to a process that may have ended by itself in this moment.
func (p *program) signal(s os.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(s)
	}
}

// exit waits for the process to end and returns its exit code; -1 where a signal ended it.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s did not end within %v", p.cmd.Path, patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
