//go:build receivers && linux

package receivers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/collector/e2e/internal/child"
	"defenderiot/services/simulator"
)

const (
	outputName = "devo_1"
	table      = "edr.microsoft_defender.iot_security.alert"
	// unconfirmedBound is how many alerts may be in doubt when a connection breaks.
	unconfirmedBound = 5000
)

// world is a simulated Azure, a receiver, and the folder of a collector between them.
type world struct {
	t        *testing.T
	sim      *simulator.Simulator
	dir      string
	receiver *receiver
	made     map[string]string // the body that each id must arrive with, but for the two members
}

// newWorld makes one with total alerts. The output has the given type.
func newWorld(t *testing.T, k kind, outputType string, total int) *world {
	t.Helper()
	const odd, big = 1600, 8
	begin := time.Now().Add(-time.Hour)
	sim, err := simulator.New(simulator.Options{Generator: simulator.GeneratorOptions{Seed: 20, Start: begin, Spread: 59 * time.Minute}, Backfill: max(0, total-odd-big)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // before anything that registers clean-ups: programs end first
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := sim.Close(ctx); err != nil {
			t.Logf("simulator: %v", err)
		}
	})
	if total > 0 {
		sim.Graph.Add(awkward(odd, big, begin)...)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sim: sim, dir: dir, made: map[string]string{}}
	if err := sim.WriteConfig(dir); err != nil {
		t.Fatal(err)
	}
	w.receiver = newReceiver(t, k, sim, dir)
	w.configure(outputType)
	for _, row := range sim.Graph.Rows() {
		w.made[row.ID()] = expected(row.JSON)
	}
	if len(w.made) != total {
		t.Fatalf("%d alerts with ids of their own, want %d", len(w.made), total)
	}
	return w
}

// configure leads the collector's output to the receiver.
func (w *world) configure(outputType string) {
	w.t.Helper()
	_, simulated, ok := strings.Cut(w.sim.Devo.Addr(), ":")
	if !ok {
		w.t.Fatalf("no port in %s", w.sim.Devo.Addr())
	}
	path := filepath.Join(w.dir, "config.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, edit := range [][2]string{
		{"type: devo_platform", "type: " + outputType},
		{"port: " + simulated, fmt.Sprintf("port: %d", w.receiver.port)},
		{"request_period_in_seconds: 10", "request_period_in_seconds: 1\n        overlap_in_minutes: 1\n        quota_share: 1"},
		{"globals:", "telemetry:\n  listen: 127.0.0.1:0\n  internal_events: false\nglobals:"},
	} {
		if !strings.Contains(string(text), edit[0]) {
			w.t.Fatalf("the configuration has no %q:\n%s", edit[0], text)
		}
		text = []byte(strings.Replace(string(text), edit[0], edit[1], 1))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// collect runs the collector.
func (w *world) collect() *child.Program {
	w.t.Helper()
	return child.Start(w.t, w.dir, collectorProgram, nil, "run", "--config", "config.yaml")
}

// status is what the test needs of `collector status --json`.
type status struct {
	Outputs map[string]struct {
		Confirmed, Pending, Unconfirmed, Resent uint64
		Proof                                   string
	}
	DeadLetters uint64 `json:"dead_letters"`
}

// confirmed waits until the collector says that all alerts are confirmed, and returns what it says.
func (w *world) confirmed() status {
	w.t.Helper()
	var s status
	eventually(w.t, "all alerts to be confirmed", func() bool {
		p := child.Start(w.t, w.dir, collectorProgram, nil, "status", "--json", "--config", "config.yaml")
		if p.Exit(patience) != 0 {
			return false
		}
		s = status{}
		if err := json.Unmarshal([]byte(p.Stdout.String()), &s); err != nil {
			w.t.Fatalf("collector status --json: %v\n%s", err, p.Stdout.String())
		}
		o := s.Outputs[outputName]
		return o.Confirmed+s.DeadLetters >= uint64(len(w.made)) && o.Pending == 0 && o.Unconfirmed == 0
	})
	return s
}

// stop ends a program in order.
func (w *world) stop(p *child.Program, code int) {
	w.t.Helper()
	p.Signal(syscall.SIGTERM)
	if got := p.Exit(patience); got != code {
		w.t.Errorf("%s ended with %d after SIGTERM, want %d", p.Name, got, code)
	}
}
