//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/pkg/faultpoint"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

// supervised is a program that is started again whenever it dies, as an init system does.
type supervised struct {
	w       *world
	start   func() *program
	current *program
	crashes int
}

// look starts the program again if it has died; it counts.
func (s *supervised) look() {
	s.w.t.Helper()
	if s.current != nil && s.current.Running() {
		return
	}
	if s.current != nil {
		s.crashes++
		s.w.breaks++
		s.w.kills++
		if s.crashes > 2 {
			s.w.t.Fatalf("it has crashed %d times", s.crashes)
		}
	}
	s.current = s.start()
}

// dead are the dead letters.
func (w *world) dead() (letters []struct {
	Letter   uint64 `json:"letter"`
	Stage    string `json:"stage"`
	Output   string `json:"output"`
	AlertID  string `json:"alert_id"`
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts"`
}) {
	w.t.Helper()
	p := output(w.t, w.dir, collectorProgram, "dead", "list", "--json", "--config", "config.yaml")
	if p.Code() != 0 {
		return nil // nothing runs at this moment
	}
	for line := range strings.Lines(p.Stdout.String()) {
		letters = append(letters, struct {
			Letter   uint64 `json:"letter"`
			Stage    string `json:"stage"`
			Output   string `json:"output"`
			AlertID  string `json:"alert_id"`
			Reason   string `json:"reason"`
			Attempts int    `json:"attempts"`
		}{})
		if err := json.Unmarshal([]byte(line), &letters[len(letters)-1]); err != nil {
			w.t.Fatalf("%v: %s", err, line)
		}
	}
	return letters
}

// poison makes an alert that is deadly at a place, and returns the environment for that.
func (w *world) poison(place string) (row simulator.Row, environment []string) {
	row = w.sim.Generator.NextAt(w.sim.Graph.Now().Add(-time.Second))
	id := row.ID()
	mark := proto.HashIdentity(id)
	if place == faultpoint.SenderFrames {
		mark = id[strings.LastIndex(id, "/")+1:]
	}
	return row, []string{fmt.Sprintf("COLLECTOR_CRASH_AT=%s:%s", place, mark)}
}

// outlives adds a poisonous alert to a pipeline that is at work. Everything else arrives, and that one is in DEAD,
// also after it was tried again twice. upgraded starts what can read it: then a retry delivers it, once.
func (w *world) outlives(s *supervised, place string, row simulator.Row, upgraded func() *program) {
	w.t.Helper()
	s.look()
	w.arrived()
	w.sim.Graph.Add(row)
	w.add(100)
	begun, id := time.Now(), row.ID()
	others := func() bool {
		s.look()
		missing := w.sim.Missing()
		return len(missing) == 1 && strings.EqualFold(missing[0], id)
	}
	eventually(w.t, "all others to arrive", others)
	stage := proto.StageDedup
	if place == faultpoint.SenderFrames {
		stage = proto.StageSender
	}
	eventually(w.t, "the dead letter", func() bool { s.look(); return len(w.dead()) > 0 })
	w.t.Logf("%d crashes, the letter after %v", s.crashes, time.Since(begun).Round(100*time.Millisecond))
	if s.crashes < 1 {
		w.t.Error("nothing has crashed, so this test has shown nothing")
	}
	for range 2 {
		letters := w.dead()
		if len(letters) != 1 || letters[0].Stage != stage || !strings.Contains(letters[0].Reason, "two crashes") || !strings.Contains(letters[0].Reason, "stack overflow") {
			w.t.Fatalf("dead letters: %+v", letters)
		}
		w.t.Logf("letter: %+v", letters[0])
		// The fetcher reads the alert again and again meanwhile, and goes on.
		w.add(20)
		eventually(w.t, "new alerts to arrive", others)
		before := s.crashes
		retry := w.start(collectorProgram, "dead", "retry", fmt.Sprint(letters[0].Letter))
		retry.Exit(patience)
		eventually(w.t, "the letter to be there again", func() bool {
			s.look()
			again := w.dead()
			return len(again) == 1 && (stage == proto.StageSender || again[0].Letter != letters[0].Letter)
		})
		if s.crashes != before {
			w.t.Errorf("the retry has crashed it %d times", s.crashes-before)
		}
	}
	s.current.stop()
	p := upgraded()
	letter := ""
	eventually(w.t, "the letter after the upgrade", func() bool {
		letters := w.dead()
		if len(letters) == 1 {
			letter = fmt.Sprint(letters[0].Letter)
		}
		return letter != ""
	})
	if retry := output(w.t, w.dir, collectorProgram, "dead", "retry", letter, "--config", "config.yaml"); retry.Code() != 0 {
		w.t.Errorf("dead retry: exit code %d: %s%s", retry.Code(), retry.Stdout.String(), retry.Log.String())
	}
	w.settle(0)
	if n := w.sim.Devo.Counts()[id]; n != 1 {
		w.t.Errorf("the alert has arrived %d times, want once", n)
	}
	if letters := w.dead(); len(letters) != 0 {
		w.t.Errorf("dead letters: %+v", letters)
	}
	p.stop()
}

// A message that ends the one process each time is put aside, and its neighbours flow on.
func TestPoisonInOneProcess(t *testing.T) {
	t.Parallel()
	for _, place := range []string{faultpoint.DedupReads, faultpoint.SenderFrames} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{Backfill: 2000})
			row, environment := w.poison(place)
			s := &supervised{w: w, start: func() *program {
				return w.with(environment, killableProgram, "run", "--config", "config.yaml")
			}}
			w.outlives(s, place, row, w.run)
		})
	}
}

// The same with separate programs on a server that lives on.
func TestPoisonInSeparatePrograms(t *testing.T) {
	t.Parallel()
	for place, name := range map[string]string{faultpoint.DedupReads: killableDedup, faultpoint.SenderFrames: killableSender} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
			w := newWorld(t, simulator.Options{Backfill: 2000}, "globals:", bus)
			w.server(port)()
			if p := w.start(collectorProgram, "provision"); p.Exit(patience) != 0 {
				t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
			}
			row, environment := w.poison(place)
			var sound string
			for _, other := range []string{fetcherProgram, dedupProgram, senderProgram} {
				if strings.HasPrefix(name, other) {
					sound = other
					continue
				}
				w.start(other)
			}
			s := &supervised{w: w, start: func() *program { return w.with(environment, name, "--config", "config.yaml") }}
			w.outlives(s, place, row, func() *program { return w.start(sound) })
		})
	}
}

// However often the process itself is killed, that is nobody's fault: no dead letters.
func TestKilledOftenPutsNothingAside(t *testing.T) {
	long(t)
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000})
	end := w.feed(100)
	var p *program
	for i := range 20 {
		p = w.run()
		if i%4 == 0 {
			w.flows()
		} else {
			time.Sleep(time.Duration(200+137*i%1300) * time.Millisecond) // before, in and after the first batches
		}
		w.kill(p)
		w.breaks++
	}
	p = w.run()
	w.flows()
	end()
	w.settle(0)
	if letters := w.dead(); len(letters) != 0 || *w.status().DeadLetters != 0 {
		t.Errorf("dead letters: %+v", letters)
	}
	p.stop()
	if p.Cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Error("it was killed")
	}
}
