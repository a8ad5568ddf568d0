//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bin is the folder of the programs.
var bin string

// The programs. Those that end in faultpoints can be killed at named points and by marked messages; those that end in -next
// write and read envelopes of a major version that the others do not know.
const (
	collectorProgram = "collector"
	killableProgram  = "collector-faultpoints"
	killableDedup    = "dedup-faultpoints"
	killableSender   = "sender-faultpoints"
	fetcherProgram   = "fetcher"
	dedupProgram     = "dedup"
	senderProgram    = "sender"
	simulatorProgram = "simulator"
	natsProgram      = "nats-server"
	next             = "-next"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		// The tests mostly wait: for time-outs, backoffs and redelivery.
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	bin = os.Getenv("E2E_BIN")
	if bin == "" {
		dir, err := os.MkdirTemp("", "collector-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		if err := build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	printTable(os.Stdout)
	if path := os.Getenv("E2E_TABLE"); path != "" { // go test shows nothing of what passes
		f, err := os.Create(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer f.Close()
		printTable(f)
	}
	return code
}

// build makes every program once.
func build(dir string) error {
	for _, p := range []struct{ program, source, tags string }{
		{collectorProgram, "defenderiot/services/collector/cmd/collector", ""},
		{killableProgram, "defenderiot/services/collector/cmd/collector", "faultpoints"},
		{killableDedup, "defenderiot/services/dedup/cmd/dedup", "faultpoints"},
		{killableSender, "defenderiot/services/sender/cmd/sender", "faultpoints"},
		{fetcherProgram, "defenderiot/services/fetcher/cmd/fetcher", ""},
		{dedupProgram, "defenderiot/services/dedup/cmd/dedup", ""},
		{senderProgram, "defenderiot/services/sender/cmd/sender", ""},
		{fetcherProgram + next, "defenderiot/services/fetcher/cmd/fetcher", "nextmajor"},
		{dedupProgram + next, "defenderiot/services/dedup/cmd/dedup", "nextmajor"},
		{senderProgram + next, "defenderiot/services/sender/cmd/sender", "nextmajor"},
		{simulatorProgram, "defenderiot/services/simulator/cmd/simulator", ""},
		{natsProgram, "github.com/nats-io/nats-server/v2", ""},
	} {
		// -trimpath as in `make build`, so that both share the compiled packages.
		args := []string{"build", "-trimpath", "-tags", p.tags, "-o", filepath.Join(dir, p.program)}
		cgo := "0"
		if race && p.program != natsProgram {
			args, cgo = append(args, "-race"), "1"
		}
		cmd := exec.Command("go", append(args, p.source)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.program, err, out)
		}
	}
	return nil
}
