//go:build faultpoints

package faultpoint

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestHit(t *testing.T) {
	if os.Getenv(variable) != "" {
		for range 3 {
			Hit("here")
			Hit("there")
			os.Stdout.WriteString("survived\n")
		}
		return
	}
	for _, tt := range []struct {
		at       string
		survived int
		killed   bool
	}{{"here:1", 0, true}, {"there:3", 2, true}, {"there:4", 3, false}, {"nowhere:1", 3, false}} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestHit$")
		cmd.Env = append(os.Environ(), variable+"="+tt.at)
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != tt.killed || strings.Count(string(out), "survived") != tt.survived {
			t.Errorf("%s: killed %v after %q (%v), want killed %v after %d hits", tt.at, killed, out, err, tt.killed, tt.survived)
		}
	}
}

func TestNonsenseEndsTheProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"=here")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v, want exit code 2", err)
	}
}
