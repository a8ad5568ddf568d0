package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// parentVariable makes the test program a service that is busy with a message which hangs.
const parentVariable = "TRIAL_TEST_PARENT"

func TestMain(m *testing.M) {
	Enter(map[string]Work{"test": work})
	if os.Getenv(parentVariable) != "" {
		t := New("test", slog.New(slog.DiscardHandler))
		t.Try(context.Background(), 0, messages("sound"))
		fmt.Println(t.child.cmd.Process.Pid)
		t.Try(context.Background(), 0, messages("hangs"))
		return
	}
	goleak.VerifyTestMain(m)
}

// work dies, hangs or talks as the message says.
func work(option byte, message []byte) {
	kind, path, _ := strings.Cut(string(message), ":")
	switch kind {
	case "overflows":
		fmt.Fprintln(io.Discard, overflow(1))
	case "exits":
		os.Exit(3)
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hangs":
		for n := 0; ; n++ {
			if n < 0 {
				return
			}
		}
	case "sleeps":
		time.Sleep(time.Hour)
	case "talks":
		fmt.Println("garbage")
	case "answers":
		_, _ = os.NewFile(1, "").WriteString("garbage")
	case "panics":
		panic("recovered")
	case "allocates":
		hoard(2 << 30)
	case "once": // dies the first time
		if _, err := os.Stat(path); err != nil {
			_ = os.WriteFile(path, nil, 0o600)
			os.Exit(4)
		}
	case "once killed":
		if _, err := os.Stat(path); err != nil {
			_ = os.WriteFile(path, nil, 0o600)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		os.Exit(4)
	case "aborts":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	case "environment":
		if env := os.Environ(); len(env) != 1 {
			os.Exit(5)
		}
	case "option":
		if option != 7 {
			os.Exit(6)
		}
	}
}

func overflow(n int) int {
	if n < 0 {
		return n
	}
	return overflow(n+1) + 1
}

func hoard(size int) {
	b := make([]byte, size)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Fprintln(io.Discard, b[size/2])
}

func messages(texts ...string) [][]byte {
	out := make([][]byte, len(texts))
	for i, t := range texts {
		out[i] = []byte(t)
	}
	return out
}

// log is safe for concurrent use.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newTrial makes one that leaves no child behind.
func newTrial(t *testing.T) (*Trial, *log) {
	t.Helper()
	said := &log{}
	trial := New("test", slog.New(slog.NewTextHandler(said, nil)))
	t.Cleanup(func() {
		trial.Close()
		if left := children(t); len(left) > 0 {
			t.Errorf("children are left: %v", left)
		}
	})
	return trial, said
}

// children are the processes of this one that exist, dead ones that nobody waited for included.
func children(t *testing.T) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lists {
		text, _ := os.ReadFile(path) // a thread may have ended
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

func TestVerdicts(t *testing.T) {
	once, killedOnce := filepath.Join(t.TempDir(), "mark"), filepath.Join(t.TempDir(), "mark")
	for name, tt := range map[string]struct {
		messages  [][]byte
		condemned []int // or unjudged
		reason    string
		unjudged  bool
	}{
		"all sound":            {messages: messages("a", "", "b", strings.Repeat("c", 3<<20))},
		"none":                 {},
		"a panic is no crash":  {messages: messages("a", "panics", "b")},
		"no secrets":           {messages: messages("environment")},
		"option":               {messages: messages("option")},
		"first":                {messages: messages("exits", "a"), condemned: []int{0}, reason: "exit status 3"},
		"last":                 {messages: messages("a", "b", "exits"), condemned: []int{2}, reason: "exit status 3"},
		"several":              {messages: messages("exits", "a", "exits", "exits", "b"), condemned: []int{0, 2, 3}, reason: "exit status 3"},
		"stack":                {messages: messages("a", "overflows", "b"), condemned: []int{1}, reason: "two crashes"},
		"memory":               {messages: messages("a", "allocates", "b"), condemned: []int{1}, reason: "two crashes"},
		"hangs":                {messages: messages("a", "hangs", "b"), condemned: []int{1}, reason: "no answer in time"},
		"abort":                {messages: messages("a", "aborts", "b"), condemned: []int{1}, reason: "two crashes"},
		"killed and crashes":   {messages: messages("a", "once killed:"+killedOnce, "b"), condemned: []int{1}, reason: "exit status 4"},
		"what it prints":       {messages: messages("a", "talks", "b")},
		"one crash is no two":  {messages: messages("a", "once:"+once, "b")},
		"more than pipes hold": {messages: append(slices.Repeat(messages(strings.Repeat("d", 4000)), 500), []byte("exits")), condemned: []int{500}, reason: "exit status 3"},
		"killed":               {messages: messages("a", "killed", "exits"), condemned: []int{1, 2}, reason: "signal: killed", unjudged: true},
		"waits":                {messages: messages("a", "sleeps", "b"), condemned: []int{1}, reason: "no answer in time", unjudged: true},
		"answers":              {messages: messages("a", "answers", "b"), condemned: []int{1}, unjudged: true},
	} {
		t.Run(name, func(t *testing.T) {
			trial, said := newTrial(t)
			if name == "hangs" || name == "waits" {
				trial.patience, trial.busy = 4*time.Second, 200*time.Millisecond
			}
			verdicts := trial.Try(t.Context(), 7, tt.messages)
			var got []int
			for i, err := range verdicts {
				want := ErrCondemned
				if tt.unjudged && i == 1 {
					want = ErrUnjudged
				}
				got = append(got, i)
				if tt.unjudged && i != 1 {
					continue
				}
				if !errors.Is(err, want) || !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%d: %v, want %q", i, err, tt.reason)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.condemned) {
				t.Errorf("condemned %v, want %v: %v", got, tt.condemned, verdicts)
			}
			if text := said.String(); tt.unjudged != strings.Contains(text, "hint=") || !tt.unjudged && text != "" {
				t.Errorf("it logs %s", text)
			}
		})
	}
}

// Without a child nothing is condemned, and that is said once.
func TestNoChild(t *testing.T) {
	for name, path := range map[string]string{"absent": "/nonexistent", "another program": "/bin/true"} {
		t.Run(name, func(t *testing.T) {
			trial, said := newTrial(t)
			trial.path = func() (string, error) { return path, nil }
			for range 3 {
				if verdicts := trial.Try(t.Context(), 0, messages("exits")); len(verdicts) > 0 {
					t.Errorf("condemned: %v", verdicts)
				}
			}
			if n := strings.Count(said.String(), "\n"); n != 1 || !strings.Contains(said.String(), "hint=") {
				t.Errorf("%d lines: %s", n, said)
			}
		})
	}
}

// What a child has ended under is not taken when no other one can be started, now or later, but it is judged as soon
// as one can. Its neighbours are taken.
func TestNoOtherChild(t *testing.T) {
	trial, said := newTrial(t)
	path := "/proc/self/exe"
	starts := 0
	trial.path = func() (string, error) {
		if starts++; starts == 2 {
			path = "/nonexistent"
		}
		return path, nil
	}
	for range 3 {
		verdicts := trial.Try(t.Context(), 0, messages("a", "exits", "b", "c"))
		if len(verdicts) != 1 || !errors.Is(verdicts[1], ErrUnjudged) {
			t.Errorf("verdicts %v", verdicts)
		}
	}
	if text := said.String(); strings.Count(text, "\n") != 2 || strings.Count(text, "hint=") != 2 {
		t.Errorf("it logs %s", text)
	}
	trial.failed, path = time.Time{}, "/proc/self/exe"
	verdicts := trial.Try(t.Context(), 0, messages("a", "exits", "b", "c"))
	if len(verdicts) != 1 || !errors.Is(verdicts[1], ErrCondemned) || len(trial.withheld) != 0 {
		t.Errorf("verdicts %v, withheld %d", verdicts, len(trial.withheld))
	}
}

// Where something ends every child, it is as where none can be started: only what they ended under is withheld.
func TestHelpless(t *testing.T) {
	trial, said := newTrial(t)
	batch := messages("killed:1", "killed:2", "killed:3", "killed:4", "a")
	for range 2 {
		verdicts := trial.Try(t.Context(), 0, batch)
		if len(verdicts) != maxHelpless || verdicts[3] != nil || verdicts[4] != nil {
			t.Errorf("verdicts %v", verdicts)
		}
	}
	if text := said.String(); strings.Count(text, "in a process of its own failed: every child process is ended") != 1 {
		t.Errorf("it logs %s", text)
	}
	trial.failed = time.Time{}
	if verdicts := trial.Try(t.Context(), 0, messages("a", "b", "killed:1", "c")); len(verdicts) != 1 || !errors.Is(verdicts[2], ErrUnjudged) {
		t.Errorf("verdicts %v", verdicts)
	}
	if trial.helpless != 0 {
		t.Errorf("%d", trial.helpless)
	}
}

// A program that has not entered is never started as a child: it would do its own work.
func TestNotEntered(t *testing.T) {
	trial := New("unknown", slog.New(slog.DiscardHandler))
	if verdicts := trial.Try(t.Context(), 0, messages("exits")); verdicts != nil || len(children(t)) > 0 {
		t.Errorf("%v, children %v", verdicts, children(t))
	}
}

func TestContext(t *testing.T) {
	trial, said := newTrial(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begun := time.Now()
	verdicts := trial.Try(ctx, 0, messages("exits", "hangs", "exits"))
	if _, early := verdicts[0]; ctx.Err() == nil || len(verdicts) > 1 || len(verdicts) == 1 && !early || time.Since(begun) > patience/2 {
		t.Errorf("%v after %v", verdicts, time.Since(begun))
	}
	if verdicts := trial.Try(t.Context(), 0, messages("a")); len(verdicts) > 0 || said.String() != "" {
		t.Errorf("afterwards: %v, log %s", verdicts, said)
	}
}

// One child serves many batches, is ended when idle, and its death between two batches condemns nothing.
func TestOneChild(t *testing.T) {
	trial, _ := newTrial(t)
	trial.idle = time.Second
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 5 {
				if v := trial.Try(t.Context(), 0, messages("a", "b")); len(v) > 0 {
					t.Error(v)
				}
			}
		})
	}
	group.Wait()
	left := children(t)
	if len(left) != 1 {
		t.Fatalf("children %v, want one", left)
	}
	pid, err := strconv.Atoi(left[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM) // a stop that is meant for the service
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if v := trial.Try(t.Context(), 0, messages("a", "b")); len(v) > 0 {
		t.Error(v)
	}
	for deadline := time.Now().Add(30 * time.Second); len(children(t)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the idle child is still there")
		}
	}
}

// The child of a service that is killed does not outlive it, however busy it is.
func TestParentDies(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanln(out, &pid); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // until it hangs; either way it must go
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the child %d has outlived its parent", pid)
		}
	}
}

// alive reports whether a process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func BenchmarkTry(b *testing.B) {
	trial := New("test", slog.New(slog.DiscardHandler))
	defer trial.Close()
	batch := slices.Repeat([][]byte{bytes.Repeat([]byte("a"), 700)}, 1000)
	for b.Loop() {
		trial.Try(b.Context(), 0, batch)
	}
}
