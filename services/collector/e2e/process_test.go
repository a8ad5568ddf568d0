//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// The main job: what is there and what comes arrives once, as it must look, and a restart sends nothing
// again.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000, KeepFrames: true})
	p := w.run()
	end := w.feed(50)
	eventually(t, "the back-fill and live alerts", func() bool { return w.unique() > 3200 })
	connection(t, w.dir)
	w.refusesASecond(p)
	end()
	w.arrived()
	w.onceAndKnown()
	w.frames()

	p.stop()
	w.unreachable()
	frames := w.sim.Devo.Stats().Frames
	p = w.run()
	p.says("The data is up to date!")
	w.add(10)
	w.arrived()
	if again := w.sim.Devo.Stats().Frames; again != frames+10 {
		t.Errorf("%d frames after a restart and 10 more alerts, want %d", again, frames+10)
	}
	w.settle(0)
	p.stop()
}

// An orderly stop in mid-stream confirms what was written: nothing is sent again, not even possibly.
func TestStoppedInMidStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000})
	end := w.feed(50)
	var slowest time.Duration
	for range 3 {
		p := w.run()
		slowest = max(slowest, w.flows())
		p.stop()
	}
	p := w.run()
	slowest = max(slowest, w.flows())
	end()
	if a := w.healthy(p, slowest); a.repeats != 0 {
		t.Errorf("%d alerts arrived again after orderly stops", a.repeats)
	}
}

// connection checks the file that leads to the embedded server.
func connection(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "state", "bus", "connection.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the connection file has mode %v, want 0600", info.Mode().Perm())
	}
}

func (w *world) refusesASecond(first *program) {
	w.t.Helper()
	second := w.run()
	if code := second.Exit(patience); code != 1 {
		w.t.Errorf("a second collector on the same folder ended with %d, want 1", code)
	}
	for _, text := range []string{"in use by another collector", fmt.Sprintf("pid %d", first.Cmd.Process.Pid), "hint: "} {
		if !strings.Contains(second.Log.String(), text) {
			w.t.Errorf("the second collector says nothing of %q:\n%s", text, second.Log.String())
		}
	}
	if !first.Running() {
		w.t.Error("the first collector did not survive the second")
	}
}

// onceAndKnown checks the counts of an undisturbed run.
func (w *world) onceAndKnown() {
	w.t.Helper()
	s := w.confirmed()
	stats := w.sim.Devo.Stats()
	made := uint64(w.sim.Graph.Len())
	o := s.Outputs[outputName]
	for _, c := range []struct {
		field string
		got   uint64
	}{{"events.unique", *s.Events.Unique}, {"confirmed", *o.Confirmed}, {"frames at the endpoint", uint64(stats.Frames)}, {"arrived", uint64(stats.Unique)}} {
		if c.got != made {
			w.t.Errorf("%s is %d, want the %d alerts made", c.field, c.got, made)
		}
	}
	if *s.Events.Received != *s.Events.Unique+*s.Events.Duplicates {
		w.t.Errorf("received %d, unique %d, duplicates %d do not add up", *s.Events.Received, *s.Events.Unique, *s.Events.Duplicates)
	}
	if *o.Resent != 0 || *s.DeadLetters != 0 || stats.CutTails != 0 {
		w.t.Errorf("resent %d, dead letters %d, cut tails %d in an undisturbed run", *o.Resent, *s.DeadLetters, stats.CutTails)
	}
	if o.Proof != "half-close" {
		w.t.Errorf("proof is %q, want half-close", o.Proof)
	}
	if s.Checkpoint == nil || s.Checkpoint.StartTime == nil {
		w.t.Fatalf("checkpoint and its start time are missing: %+v", s.Checkpoint)
	}
	var newest time.Time
	for _, row := range w.sim.Graph.Rows() {
		if at, ok := row.Start(); ok && at.After(newest) {
			newest = at
		}
	}
	// The clock that bounds the checkpoint has whole seconds.
	if at := s.Checkpoint.LastEventTime; at.After(newest) || at.Before(newest.Add(-2*time.Second)) {
		w.t.Errorf("the checkpoint stands at %v, the newest alert at %v", at, newest)
	}
}

var frameForm = regexp.MustCompile(`(?s)^<14>(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (\S+) (\S+): (\{.*\})$`)

// frames checks every frame byte for byte against the row that Azure sent.
func (w *world) frames() {
	w.t.Helper()
	host, err := os.Hostname()
	if err != nil {
		w.t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, row := range w.sim.Graph.Rows() {
		body := bytes.TrimRight(row.JSON, " \t\r\n")
		rows[strings.NewReplacer("\n", "", "\r", "").Replace(string(body[:len(body)-1]))] = true
	}
	wrong := 0
	for _, frame := range w.sim.Devo.Frames() {
		if problem := checkFrame(string(frame), host, rows); problem != "" {
			if wrong++; wrong < 4 {
				w.t.Errorf("%s:\n%s", problem, frame)
			}
		}
	}
	if wrong > 0 {
		w.t.Errorf("%d frames are wrong", wrong)
	}
}

func checkFrame(frame, host string, rows map[string]bool) (problem string) {
	parts := frameForm.FindStringSubmatch(frame)
	if parts == nil {
		return "no frame"
	}
	at, err := time.Parse("2006-01-02 15:04:05.000", parts[1])
	if err != nil {
		return err.Error()
	}
	if parts[2] != host || parts[3] != table {
		return fmt.Sprintf("host %q and table %q, want %q and %q", parts[2], parts[3], host, table)
	}
	// The date is the pull's start, which is also the pulling id.
	added := `,"@devo_environment":"demo","@devo_pulling_id":"` + strconv.FormatInt(at.UnixMilli(), 10) + `"}`
	row, ok := strings.CutSuffix(parts[4], added)
	if !ok {
		return "the end is not " + added
	}
	if !rows[row] {
		return "the row is none that Azure sent"
	}
	return ""
}

// unreachable checks what status says when nothing runs.
func (w *world) unreachable() {
	w.t.Helper()
	p := output(w.t, w.dir, collectorProgram, "status", "--json", "--config", "config.yaml")
	if p.Code() != 1 || !strings.Contains(p.Log.String(), "no collector is running") || !strings.Contains(p.Log.String(), "hint: ") {
		w.t.Errorf("status without a collector: exit %d, %s", p.Code(), p.Log.String())
	}
}
