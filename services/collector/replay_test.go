package collector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	contract "defenderiot/proto"
	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

// command runs a collector command in the site's folder.
func (s *site) command(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := collector.Command(&out, &errs)
	cmd.SetArgs(append(args, "--config", "config.yaml"))
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		process.Print(&errs, "collector", err)
	}
	return out.String(), errs.String(), process.Code(err)
}

// TestReplayFromTheCommandToTheEndpoint runs everything: alerts come from the simulated Azure, and the command
// sends them again, byte for byte.
func TestReplayFromTheCommandToTheEndpoint(t *testing.T) {
	s := newSite(t, simulator.Options{KeepFrames: true})
	s.Graph.Add(s.Generator.Rows(400)...)
	const n = 403 // with those that a site has
	t.Chdir(s.dir)
	window := []string{"replay", "--from", "2000-01-01", "--to", "2100-01-01"}
	run := func(code int, args []string, texts ...string) string {
		t.Helper()
		out, errs, got := s.command(t.Context(), args...)
		if got != code {
			t.Errorf("%v: exit code %d, want %d:\n%s%s", args, got, code, out, errs)
		}
		for _, text := range texts {
			if !strings.Contains(out+errs, text) {
				t.Errorf("%v: no %q in\n%s%s", args, text, out, errs)
			}
		}
		return out
	}
	frames := func() map[string]int {
		out := map[string]int{}
		for _, f := range s.Devo.Frames() {
			if bytes.Contains(f, []byte("iot_security.alert: {")) {
				out[string(f)]++
			}
		}
		return out
	}
	did := false
	s.carry("", n, func() bool {
		if did {
			return true
		}
		did = true
		run(0, []string{"replay", "status"}, "no jobs")
		run(0, append(window, "--dry-run", "--rate", "100"), fmt.Sprintf("%d, ", n), "sequences 1 to 403", "at least 4s", "not started: --dry-run")
		run(0, append(window, "--where", "properties.severity=None", "--by", "stored"), "alerts", "nothing to send")
		if got := frames(); len(got) != n {
			t.Errorf("%d different frames before", len(got))
		}
		started := run(0, window, "started", "done", "confirmed 403 of 403, possibly resent 0")
		for frame, times := range frames() {
			if times != 2 {
				t.Fatalf("%d times: %s", times, frame)
			}
		}
		id := regexp.MustCompile(`job ([0-9a-f]{10}) to devo_1 started`).FindStringSubmatch(started)
		if id == nil {
			t.Fatal(started)
		}
		// The same again does nothing, however the window is written.
		run(0, []string{"replay", "--to", "2100-01-01T00:00:00Z", "--from", "2000-01-01 00:00:00"}, id[1], "done", "--again starts anew")
		run(0, append(window, "--again"), id[1]+"-2 to devo_1 started", "done")
		var status struct{ Jobs []collector.JobStatus }
		if err := json.Unmarshal([]byte(run(0, []string{"replay", "status", "--json"})), &status); err != nil || len(status.Jobs) != 2 {
			t.Fatalf("%+v, %v", status, err)
		}
		if j := status.Jobs[0]; j.ID != id[1] || j.State != "done" || j.Total != n || j.Confirmed != n || j.Bytes == 0 || j.Ended == nil || j.Rate <= 0 {
			t.Errorf("%+v", j)
		}
		run(0, []string{"replay", "cancel", id[1]}, "was done before")
		run(1, []string{"replay", "cancel"}, "0 jobs are running")
		run(1, []string{"replay", "cancel", "nothing.*"}, "no such job")

		// A command that is interrupted leaves the job to the senders, and finds it again.
		slow := append(window, "--rate", "20", "--by", "stored")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, errs, code := s.command(ctx, slow...)
		cancel()
		if code != 0 || !strings.Contains(errs, "the senders go on without this command") {
			t.Errorf("interrupted: %d, %s", code, errs)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		out, errs, _ := s.command(ctx, slow...)
		cancel()
		if strings.Contains(out, "started") || !strings.Contains(errs, "go on without") {
			t.Errorf("attached: %s%s", out, errs)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		_, errs, _ = s.command(ctx, append(window, "--by", "stored", "--rate", "30")...)
		cancel()
		if !strings.Contains(errs, "runs already, with --rate 20, and goes on so") {
			t.Errorf("another rate: %s", errs)
		}
		run(0, []string{"replay", "status"}, "running", "(at most 20)", "stored 2000-01-01T00:00:00Z")
		run(0, []string{"replay", "cancel"}, "is cancelled", "of 403 alerts were confirmed by then")
		run(0, slow, "cancelled", "--again")

		purge(t, s, 101)
		run(0, append(window, "--again", "--output", "devo_1"), "UNIQUE begins at sequence 101", "checkpoint reset --to 2000-01-01T00:00:00Z --resend", "confirmed 303 of 303")
		purge(t, s, 404)
		run(1, append(window, "--again"), "UNIQUE is empty", "--resend")
		return true
	})
	if !did {
		t.Error("nothing was replayed")
	}
}

// purge ages UNIQUE by hand.
func purge(t *testing.T, s *site, below uint64) {
	t.Helper()
	if err := s.bus().PurgeBelow(t.Context(), contract.StreamUnique, below); err != nil {
		t.Fatal(err)
	}
}

// bus connects to the running bus until the test ends.
func (s *site) bus() *bus.Bus {
	s.t.Helper()
	c, _, err := config.Load(config.Options{Path: "config.yaml"})
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := process.Connect(c, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = b.Close(context.Background()) })
	for b.Connected() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	return b
}

// What the flags refuse, before anything is connected.
func TestReplayFlags(t *testing.T) {
	newOperatorSite(t, "")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no window":        {nil, `required flag(s) "from", "to" not set`},
		"no end":           {[]string{"--from", "2026-01-01"}, `required flag(s) "to" not set`},
		"not a time":       {[]string{"--from", "01/02/2026", "--to", "2026-02-02"}, `--from "01/02/2026" is not`},
		"reversed":         {[]string{"--from", "2026-02-02", "--to", "2026-01-01"}, "is not before --to"},
		"empty":            {[]string{"--from", "2026-02-02", "--to", "2026-02-02"}, "is not before --to"},
		"another time":     {[]string{"--from", "2026-01-01", "--to", "2026-02-02", "--by", "sent"}, "none of: start, stored"},
		"negative rate":    {[]string{"--from", "2026-01-01", "--to", "2026-02-02", "--rate", "-1"}, "--rate -1 is not between"},
		"no condition":     {[]string{"--from", "2026-01-01", "--to", "2026-02-02", "--where", "severity"}, "is not field=value"},
		"an empty name":    {[]string{"--from", "2026-01-01", "--to", "2026-02-02", "--where", "a..b=1"}, "is not field=value"},
		"nothing running":  {[]string{"--from", "2026-01-01", "--to", "2026-02-02"}, "no collector is running"},
		"status, the same": {[]string{"status"}, "no collector is running"},
		"too many jobs":    {[]string{"cancel", "a", "b"}, "accepts at most 1 arg(s)"},
	} {
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			cmd := collector.Command(io.Discard, &errs)
			cmd.SetArgs(append([]string{"replay"}, append(tt.args, "--config", "config.yaml")...))
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
