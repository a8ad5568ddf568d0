//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"defenderiot/pkg/faultpoint"
	"defenderiot/services/simulator"
)

// replays is what outside tools rely on of `collector replay status --json`.
type replays struct {
	Jobs []struct {
		ID        string `json:"id"`
		State     string `json:"state"`
		Total     int64  `json:"total"`
		Confirmed int64  `json:"confirmed"`
		Resent    int64  `json:"resent"`
		Missing   int64  `json:"missing"`
	} `json:"jobs"`
}

// A job goes on after the command was interrupted and the one process was killed between any two durable steps of
// the delivery: every alert arrives once more at least, and repeats are counted.
func TestKilledWhileReplaying(t *testing.T) {
	t.Parallel()
	const alerts = 1500
	w := newWorld(t, simulator.Options{Backfill: alerts, KeepFrames: true})
	p := w.run()
	w.arrived()
	w.confirmed()
	args := []string{"replay", "--from", "2000-01-01", "--to", "2100-01-01", "--rate", "200"}
	command := w.start(collectorProgram, args...)
	eventually(t, "the job to start", func() bool { return strings.Contains(command.Stdout.String(), "to devo_1 started") })
	command.stop()
	p.stop()
	before := w.sim.Devo.Stats().Frames
	for i, point := range []string{faultpoint.LedgerWritten, faultpoint.FramesWritten, faultpoint.LedgerConfirmed, faultpoint.OutputSettled} {
		w.killAt(point, 1+i%2)
	}
	p = w.run()
	w.status() // the bus is there
	again := w.start(collectorProgram, args...)
	if code := again.Exit(patience); code != 0 || strings.Contains(again.Stdout.String(), "to devo_1 started") {
		t.Errorf("the same command again: exit %d, %s", code, again.Stdout.String())
	}
	status := output(t, w.dir, collectorProgram, "replay", "status", "--json", "--config", "config.yaml")
	var s replays
	if err := json.Unmarshal([]byte(status.Stdout.String()), &s); err != nil || len(s.Jobs) != 1 {
		t.Fatalf("%v: %s", err, status.Stdout.String())
	}
	j := s.Jobs[0]
	if j.State != "done" || j.Total != w.unique() || j.Missing != 0 {
		t.Errorf("%+v of %d alerts", j, w.unique())
	}
	times := map[string]int64{}
	for _, frame := range w.sim.Devo.Frames() {
		times[string(frame)]++
	}
	var repeats int64
	for frame, n := range times {
		if n < 2 {
			t.Fatalf("did not arrive again: %s", frame)
		}
		repeats += n - 2
	}
	t.Logf("%d alerts, %d frames before the kills; %d repeats, %d counted as possibly resent", j.Total, before, repeats, j.Resent)
	if int64(len(times)) != j.Total || repeats > j.Resent {
		t.Errorf("%d different frames of %d alerts; %d repeats, %d counted", len(times), j.Total, repeats, j.Resent)
	}
	p.stop()
}
