package trial

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"defenderiot/pkg/faultpoint"
)

// errStart says that no child can be had.
var errStart = errors.New("no child process can be started")

// errHelpless says that something ends every child.
var errHelpless = errors.New("every child process is ended")

// process is one child. It is not safe for concurrent use.
type process struct {
	cmd     *exec.Cmd
	in      *os.File
	out     *os.File
	writer  *bufio.Writer
	said    *head
	memory  uint64 // that it may have
	busy    time.Duration
	overdue atomic.Bool
}

// ending is how a child ended. It is a crash if what the child was doing ended it, which the same work would do to
// the service; a child that was ended from outside, or had too little memory or time, tells nothing.
type ending struct {
	how   string
	crash bool
}

// start starts a child and waits for its hello.
func start(ctx context.Context, path, name string, patience, busy time.Duration) (_ *process, err error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		_ = childIn.Close()
		_ = in.Close()
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	p := &process{in: in, out: out, writer: bufio.NewWriterSize(in, 64<<10), said: &head{}, memory: max(minData, min(maxData, spare())), busy: busy}
	p.cmd = exec.Command(path)
	p.cmd.Args = []string{os.Args[0]}
	// Nothing of the service's environment, which may hold secrets.
	p.cmd.Env = append([]string{fmt.Sprintf("%s=%s:%d", variable, name, p.memory)}, faultpoint.Environment()...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = childIn, childOut, p.said
	p.cmd.SysProcAttr = owned()
	err = p.cmd.Start()
	_ = childIn.Close()
	_ = childOut.Close() // else its end would not be seen
	if err != nil {
		_ = in.Close()
		_ = out.Close()
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	said := make([]byte, len(hello))
	_, stop := p.watch(ctx, patience)
	_, err = io.ReadFull(out, said)
	stop()
	if err == nil && string(said) == hello {
		return p, nil
	}
	end := p.end(0)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w: it does not say that it is one (%s)", errStart, end.how)
}

// watch kills the child when ctx ends, or when it is not reset for as long as patience.
func (p *process) watch(ctx context.Context, patience time.Duration) (reset, stop func()) {
	timer := time.AfterFunc(patience, func() {
		p.overdue.Store(true)
		p.kill()
	})
	unwatch := context.AfterFunc(ctx, p.kill)
	return func() { timer.Reset(patience) }, func() {
		timer.Stop()
		unwatch()
	}
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// try streams messages and returns how many the child answered; err is nil if it answered all. The child is of no
// more use after an error. patience grows by a second for each MiB of the largest message.
func (p *process) try(ctx context.Context, option byte, messages [][]byte, patience time.Duration) (answered int, err error) {
	largest := 0
	for _, m := range messages {
		largest = max(largest, len(m))
	}
	reset, stop := p.watch(ctx, patience+time.Duration(largest>>20)*time.Second)
	defer stop()
	var writing sync.WaitGroup
	writing.Go(func() { p.write(option, messages) })
	defer writing.Wait()
	answers := make([]byte, 4096)
	for answered < len(messages) {
		n, err := p.out.Read(answers[:min(len(answers), len(messages)-answered)])
		for _, answer := range answers[:n] {
			if answer != done {
				p.kill()
				return answered, errors.New("the child answered garbage")
			}
			answered++
		}
		if n > 0 {
			reset()
		}
		if err != nil && answered < len(messages) {
			p.kill() // it may have closed its output only
			return answered, err
		}
	}
	return answered, nil
}

// write ends early when the child is gone; who reads the answers learns that.
func (p *process) write(option byte, messages [][]byte) {
	for _, m := range messages {
		head := [5]byte{option}
		binary.BigEndian.PutUint32(head[1:], uint32(len(m)))
		_, _ = p.writer.Write(head[:]) // the writer keeps its error
		if _, err := p.writer.Write(m); err != nil {
			return
		}
	}
	_ = p.writer.Flush()
}

// end ends the child and says how it ended; size is that of the message in its hands.
func (p *process) end(size int) ending {
	_ = p.in.Close()
	p.kill() // one that has ended is not changed by that
	err := p.cmd.Wait()
	_ = p.out.Close()
	state, cause := p.cmd.ProcessState, p.said.cause()
	switch signal := signalOf(state); {
	case p.overdue.Load():
		// It is the message's only if the child was at work all the time, not waiting for a machine that is busy or
		// was paused.
		return ending{"no answer in time", state.UserTime()+state.SystemTime() >= p.busy}
	case isMemory(cause):
		return ending{cause, p.memory >= enough(size)}
	case strings.Contains(cause, "newosproc"): // a limit of threads
		return ending{cause, false}
	case cause != "":
		return ending{cause, true}
	case signal != 0:
		return ending{err.Error(), slices.Contains(ownSignals, signal)}
	case err != nil:
		return ending{err.Error(), true}
	}
	return ending{"it ended", true}
}

// ownSignals are those that a process brings upon itself.
var ownSignals = []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS}

func signalOf(state *os.ProcessState) syscall.Signal {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return 0
}

// isMemory recognises the runtime's words for memory that it does not get.
func isMemory(cause string) bool {
	return strings.Contains(cause, "out of memory") || strings.Contains(cause, "cannot allocate")
}

// enough is the memory with which every sound message of a size is tried: 27 MB, compressed, took 195 MiB with no
// bound, and were tried within this one, too.
func enough(size int) uint64 { return 64<<20 + 8*uint64(size) }

// head keeps the beginning of what a child says in dying; the rest is stacks.
type head struct {
	mu   sync.Mutex
	text []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := 4096 - len(h.text); room > 0 {
		h.text = append(h.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// cause is the runtime's own line. Other text could quote the message.
func (h *head) cause() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range bytes.Lines(h.text) {
		if text := strings.TrimSpace(string(line)); strings.HasPrefix(text, "fatal error: ") {
			return text
		}
	}
	return ""
}
