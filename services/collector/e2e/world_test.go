//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

const (
	outputName = "devo_1"
	table      = "edr.microsoft_defender.iot_security.alert"
	// unconfirmedBound is how many alerts may be in doubt when a process dies or a connection breaks.
	unconfirmedBound = 5000
)

// world is a simulator and the folder of a collector that reads from it and delivers to it.
type world struct {
	t   *testing.T
	sim *simulator.Simulator
	dir string
	// breaks counts kills and broken connections: each may put up to unconfirmedBound alerts in doubt.
	breaks, kills int
	programs      []*program // all that were started
}

// newWorld makes one; edits change the text of the configuration, as pairs of old and new.
func newWorld(t *testing.T, o simulator.Options, edits ...string) *world {
	t.Helper()
	sim, err := simulator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	// Before anything that registers clean-ups: programs end first.
	dir := t.TempDir()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := sim.Close(ctx); err != nil {
			t.Logf("simulator: %v", err)
		}
	})
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sim: sim, dir: dir}
	w.configure(edits...)
	return w
}

// configure writes the configuration anew.
func (w *world) configure(edits ...string) {
	w.t.Helper()
	if err := w.sim.WriteConfig(w.dir); err != nil {
		w.t.Fatal(err)
	}
	edits = append([]string{
		"request_period_in_seconds: 10", "request_period_in_seconds: 1\n        overlap_in_minutes: 1\n        quota_share: 1",
		"globals:", "telemetry:\n  listen: 127.0.0.1:0\n  internal_events: false\nglobals:",
	}, edits...)
	path := filepath.Join(w.dir, "config.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(string(text), edits[i]) {
			w.t.Fatalf("the configuration has no %q:\n%s", edits[i], text)
		}
		text = []byte(strings.Replace(string(text), edits[i], edits[i+1], 1))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start runs a program on the world's configuration.
func (w *world) start(name string, args ...string) *program {
	w.t.Helper()
	return w.with(nil, name, append(args, "--config", "config.yaml")...)
}

// with runs a program with additions to its environment, and nothing added to its arguments.
func (w *world) with(environment []string, name string, args ...string) *program {
	w.t.Helper()
	p := start(w.t, w.dir, name, environment, args...)
	w.programs = append(w.programs, p)
	return p
}

// kill ends a process of the world at whatever instruction it is.
func (w *world) kill(p *program) {
	p.Kill()
	w.kills++
}

// run starts the one process.
func (w *world) run() *program {
	w.t.Helper()
	return w.start(collectorProgram, "run")
}

// feed makes perSecond alerts a second until the returned function is called.
func (w *world) feed(perSecond float64) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { w.sim.Generator.Feed(ctx, w.sim.Graph, perSecond) })
	end = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	w.t.Cleanup(end)
	return end
}

// add makes n alerts of this moment.
func (w *world) add(n int) {
	rows := make([]simulator.Row, n)
	for i := range rows {
		rows[i] = w.sim.Generator.NextAt(w.sim.Graph.Now())
	}
	w.sim.Graph.Add(rows...)
}

// status is what outside tools rely on of `collector status --json`.
type status struct {
	Checkpoint *struct {
		LastEventTime time.Time  `json:"last_event_time_in_utc"`
		StartTime     *time.Time `json:"start_time_in_utc"`
	} `json:"checkpoint"`
	Events struct {
		Received   *uint64 `json:"received"`
		Duplicates *uint64 `json:"duplicates"`
		Unique     *uint64 `json:"unique"`
	} `json:"events"`
	Outputs map[string]struct {
		Confirmed   *uint64 `json:"confirmed"`
		Pending     *uint64 `json:"pending"`
		Unconfirmed *uint64 `json:"unconfirmed"`
		Resent      *uint64 `json:"resent"`
		Proof       string  `json:"proof"`
	} `json:"outputs"`
	DeadLetters *uint64 `json:"dead_letters"`
}

// status asks the running bus.
func (w *world) status() status {
	w.t.Helper()
	var s status
	eventually(w.t, "an answer of collector status", func() bool {
		p := output(w.t, w.dir, collectorProgram, "status", "--json", "--config", "config.yaml")
		if p.Code() != 0 {
			return false // a server that has just been restarted
		}
		s = status{}
		decoder := json.NewDecoder(strings.NewReader(p.Stdout.String()))
		if err := decoder.Decode(&s); err != nil {
			w.t.Fatalf("collector status --json: %v\n%s", err, p.Stdout.String())
		}
		return true
	})
	o := s.Outputs[outputName]
	for field, value := range map[string]*uint64{
		"events.received": s.Events.Received, "events.duplicates": s.Events.Duplicates, "events.unique": s.Events.Unique,
		"confirmed": o.Confirmed, "pending": o.Pending, "unconfirmed": o.Unconfirmed, "resent": o.Resent, "dead_letters": s.DeadLetters,
	} {
		if value == nil {
			w.t.Fatalf("collector status --json has no %s", field)
		}
	}
	return s
}

// arrived waits until every alert has arrived.
func (w *world) arrived() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		missing := w.sim.Missing()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Errorf("%d alerts have not arrived after %v, among them %v", len(missing), patience, missing[:min(3, len(missing))])
			return
		}
	}
}

// confirmed waits until the ledger says that nothing is pending, and returns the status.
func (w *world) confirmed() status {
	w.t.Helper()
	var s status
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		s = w.status()
		o := s.Outputs[outputName]
		if *o.Pending == 0 && *o.Unconfirmed == 0 {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d alerts are pending and %d unconfirmed after %v", *o.Pending, *o.Unconfirmed, patience)
		}
	}
}

// unique is how many alerts have arrived.
func (w *world) unique() int64 { return w.sim.Devo.Stats().Unique }

// flows waits until alerts arrive that had not when it was called, and returns how long that took.
func (w *world) flows() time.Duration {
	w.t.Helper()
	begun, before := time.Now(), w.unique()
	eventually(w.t, "alerts to flow", func() bool { return w.unique() > before })
	return time.Since(begun)
}
