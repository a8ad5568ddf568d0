//go:build receivers && linux

package receivers

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"defenderiot/services/collector/e2e/internal/child"
)

// patience bounds every wait. It is long because the machine may be slow and busy; no test measures time.
const patience = 3 * time.Minute

// eventually waits for a condition; often, because a receiver is to be stopped in mid-stream.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	child.Eventually(t, what, patience, 10*time.Millisecond, condition)
}

// collectorProgram is the path of the collector; receiversDir is where receivers-install.sh has unpacked.
var collectorProgram, receiversDir string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir := os.Getenv("RECEIVERS_DIR")
	if dir == "" {
		dir = "../../../../bin/receivers"
	}
	var err error
	if receiversDir, err = filepath.Abs(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := os.Stat(receiversDir); err != nil {
		fmt.Fprintf(os.Stderr, "the receivers are not there: %v\nrun `make receivers-test`, or deploy/test/receivers-install.sh first\n", err)
		return 1
	}
	if bin := os.Getenv("E2E_BIN"); bin != "" {
		collectorProgram = filepath.Join(bin, "collector")
		return m.Run()
	}
	bin, err := os.MkdirTemp("", "collector-receivers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	collectorProgram = filepath.Join(bin, "collector")
	// -trimpath as in `make build`, so that both share the compiled packages.
	build := exec.Command("go", "build", "-trimpath", "-o", collectorProgram, "defenderiot/services/collector/cmd/collector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the collector: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
