package collector_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/process"
	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

func TestMain(m *testing.M) {
	testscript.Main(bustest.Leakless{M: m}, map[string]func(){
		"collector": func() { os.Exit(process.Execute(collector.Command(os.Stdout, os.Stderr), os.Stderr)) },
	})
}

// scriptPatience is how long a script waits for something.
const scriptPatience = 2 * time.Minute

// scriptWorld is the key of what a script works with, a *simulator.Simulator behind a pointer.
type scriptWorld struct{}

func scriptSim(ts *testscript.TestScript) *simulator.Simulator {
	sim := *ts.Value(scriptWorld{}).(**simulator.Simulator)
	if sim == nil {
		ts.Fatalf("there is no simulator yet")
	}
	return sim
}

// Every command as a person types it: testdata/script, one file a case. Beside testscript's own commands they have
//
//	simulator [OLD NEW]...   a simulator, and its configuration in the folder, with texts replaced
//	alerts N                 N more alerts
//	arrived N                waits until all alerts are at the endpoint, N in all, none missing
//	exits CODE PROGRAM...    runs the program and wants this exit code
//	until TEXT PROGRAM...    runs the program until its output has the text
//	capture NAME REGEXP      keeps the first group of what is found in the last output
//	edit OLD NEW             replaces a text in the configuration
//	position                 FIRST, MIDDLE: when the oldest alert and the one in the middle started; LEFT: how many
//	                         started in the middle or later
//	known FOLDER             the known collector's state file with MIDDLE as its position, in KNOWN
//	letter STAGE ALERT WHY   a dead letter of a stage, about an alert or about junk
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Values[scriptWorld{}] = new(*simulator.Simulator)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"simulator": scriptSimulator, "alerts": scriptAlerts, "arrived": scriptArrived, "exits": scriptExits, "until": scriptUntil,
			"capture": scriptCapture, "edit": scriptEdit, "position": scriptPosition, "known": scriptKnown, "letter": scriptLetter,
		},
		RequireExplicitExec: true,
		UpdateScripts:       *update,
	})
}

func scriptSimulator(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args)%2 != 0 {
		ts.Fatalf("usage: simulator [OLD NEW]...")
	}
	sim, err := simulator.New(simulator.Options{Backfill: 20})
	ts.Check(err)
	ts.Check(sim.Start())
	ts.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ts.Check(sim.Close(ctx))
	})
	ts.Check(sim.WriteConfig(ts.Getenv("WORK")))
	path := filepath.Join(ts.Getenv("WORK"), "config.yaml")
	content, err := os.ReadFile(path)
	ts.Check(err)
	text := string(content)
	// A port that is known, for --health.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(listener.Close())
	args = append([]string{"globals:", "telemetry:\n  listen: " + listener.Addr().String() + "\n  internal_events: false\nglobals:", "request_period_in_seconds: 10", "request_period_in_seconds: 1"}, args...)
	for i := 0; i < len(args); i += 2 {
		if !strings.Contains(text, args[i]) {
			ts.Fatalf("the configuration has no %q", args[i])
		}
		text = strings.Replace(text, args[i], strings.ReplaceAll(args[i+1], `\n`, "\n"), 1)
	}
	ts.Check(os.WriteFile(path, []byte(text), 0o600))
	*ts.Value(scriptWorld{}).(**simulator.Simulator) = sim
	_, start, _ := strings.Cut(text, `start_time_in_utc: "`)
	start, _, _ = strings.Cut(start, `"`)
	ts.Setenv("START", start)
}

func scriptAlerts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: alerts N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	sim := scriptSim(ts)
	for range n {
		sim.Graph.Add(sim.Generator.NextAt(sim.Graph.Now()))
	}
}

func scriptArrived(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: arrived N")
	}
	n, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	sim := scriptSim(ts)
	for deadline := time.Now().Add(scriptPatience); sim.Devo.Stats().Unique != n || len(sim.Missing()) != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%d alerts arrived and %d are missing, want %d and none", sim.Devo.Stats().Unique, len(sim.Missing()), n)
		}
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit %d, want %d", code, want)
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT PROGRAM...")
	}
	for deadline := time.Now().Add(scriptPatience); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come; last: %v", args[0], err)
		}
	}
}
