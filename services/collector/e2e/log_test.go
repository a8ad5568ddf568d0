//go:build e2e

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

var update = flag.Bool("update", false, "write the golden logs")

// varying is what differs from run to run in a log, and what stands for it in the golden files.
var varying = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} `), "<time> "},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "<time>"},
	{regexp.MustCompile(`https://127\.0\.0\.1:\d+`), "https://<azure>"},
	{regexp.MustCompile(`/subscriptions/[^"]*/alerts/[0-9a-f-]{36}`), "<alert>"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "<guid>"},
	{regexp.MustCompile(`(@devo_pulling_id=|"pulling_id":)\d+`), "$1<id>"},
	{regexp.MustCompile(`(Elapsed time: |Waiting for |per second: )\d+\.\d{3}`), "$1<n>"},
	{regexp.MustCompile(`("(?:elapsed|wait)_seconds":)[0-9.e+-]+`), "$1<n>"},
	{regexp.MustCompile(`config\.yaml:\d+:\d+`), "config.yaml:<line>:<column>"},
	{regexp.MustCompile(`holder=\S+`), "holder=<instance>"},
}

func normalised(text string) string {
	for _, v := range varying {
		text = v.form.ReplaceAllString(text, v.with)
	}
	return text
}

// golden compares text with testdata/name, or writes it there.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path, got := filepath.Join("testdata", name), normalised(text)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// input are the lines of the input process.
func (p *program) input() string {
	return strings.Join(p.Log.Lines("InputProcess"), "")
}

// slowPulls makes each start pull once and read all alerts.
var slowPulls = []string{"request_period_in_seconds: 1\n        overlap_in_minutes: 1\n", "request_period_in_seconds: 600\n        overlap_in_minutes: 1440\n"}

// startAndStop are the known lines of the other two processes, each once in a run; their order is not the same each time.
var startAndStop = []string{
	`MainProcess::MainThread -> Loading configuration using the following files: \{"full_config": "[^"]+", "job_config_loc": null, "collector_config_loc": null\}`,
	`MainProcess::MainThread -> Results of validation of config files parameters: \{"config": "/[^"]+", "config_validated": True, .*\}`,
	`MainProcess::MainThread -> Build time: "[^"]+", OS: "[^"]+", collector\(name:version\): "simulated_collector:[^"]+", owner: "[^"]+", started at: "[^"]+"`,
	`MainProcess::MainThread -> OutputProcess - Starting thread \(executing_period=300s\)`,
	`OutputProcess::MainThread -> Process started`,
	`OutputProcess::MainThread -> DevoSender::_validate_kwargs_for_method__init__ -> The <address> is not a standard address \(collector-eu\.devo\.io, collector-us\.devo\.io\): 127\.0\.0\.1`,
	`OutputProcess::MainThread -> DevoSender::_validate_kwargs_for_method__init__ -> The <port> is not a standard port \(443\): \d+`,
	`OutputProcess::MainThread -> DevoSender\(standard_senders,devo_sender_0\) -> Starting thread`,
	`OutputProcess::MainThread -> DevoSenderManagerMonitor\(standard_senders,[a-z_0-9]+\) -> Starting thread \(every \d+ seconds\)`,
	`OutputProcess::MainThread -> DevoSenderManager\(standard_senders,manager,[a-z_0-9]+\) -> Starting thread`,
	`OutputProcess::DevoSenderManager\(standard_senders,manager,[a-z_0-9]+\) -> Created a sender: \{"name": "DevoSender\(standard_senders,devo_sender_0\)", "url": "[^"]+", .*\}, hostname: "[^"]+", session_id: "[^"]+"`,
	`MainProcess::MainThread -> Received the "[A-Z][a-z]+" system signal \(code: \d+\), all the processes will be gracefully stopped`,
	`MainProcess::CollectorThread -> The graceful shutdown notification will be sent`,
	`MainProcess::MainThread -> Finalizing the whole collector`,
	`MainProcess::MainThread -> \[EXIT\] Process "MainProcess" completely terminated \(elapsed time since the system signal was received: \d+\.\d{3}s\)`,
}

// The log of the input is the known one to the letter: at a first run, at a second, and after the start time was
// changed.
func TestLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 20}, slowPulls...)
	once := func(name string, frames int64) {
		p := w.run()
		p.says("Data collection completed.")
		w.arrived()
		eventually(t, "the frames", func() bool { return w.sim.Devo.Stats().Frames >= frames })
		w.confirmed()
		p.stop()
		golden(t, name, p.input())
		for _, line := range startAndStop {
			if n := len(regexp.MustCompile("(?m)^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3} +(INFO|WARNING) "+line+"$").FindAllString(p.Log.String(), -1)); n != 1 {
				t.Errorf("%s: %d lines of %s", name, n, line)
			}
		}
	}
	once("first-run.log", 20)
	once("second-run.log", 20)
	// Near enough for one pull: a longer time would be read in windows beside it.
	start := time.Now().Add(-30 * time.Hour).UTC().Format(time.RFC3339)
	w.configure(append(slowPulls, `start_time_in_utc: "20`, `start_time_in_utc: "`+start+`" # "20`)...)
	once("changed-start.log", 40)
	if frames := w.sim.Devo.Stats().Frames; frames != 40 {
		t.Errorf("%d frames, want each alert twice", frames)
	}
}

// The same messages as JSON, with the figures as members.
func TestLogAsJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 20}, append(slowPulls, "  listen: 127.0.0.1:0\n", "  listen: 127.0.0.1:0\n  log_format: json\n")...)
	p := w.run()
	p.says("Data collection completed.")
	p.stop()
	golden(t, "first-run.json.log", p.input())
}

// A fetcher of its own says what the one process says, and one that stands by says so and nothing else.
func TestLogOfSeparateFetchers(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
	w := newWorld(t, simulator.Options{Backfill: 20}, append(slowPulls, "globals:", bus)...)
	w.server(port)()
	if p := w.start(collectorProgram, "provision"); p.Exit(patience) != 0 {
		t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
	}
	active := w.start(fetcherProgram)
	active.says("Data collection completed.")
	standby := w.start(fetcherProgram)
	standby.says("standing by")
	standby.stop()
	active.stop()
	golden(t, "first-run.log", active.input())
	golden(t, "standby.log", standby.input())
}

// windows is in every query of a pull or of a test fetch, and in no other.
const windows = "todatetime(properties.startTimeUtc) >="

// Every error that people know by type and code, from its cause: as `run` and `check` tell it on stderr and in the
// log, and as Devo gets it in devo.collectors.out.
func TestKnownErrors(t *testing.T) {
	t.Parallel()
	graph := func(f simulator.Fault) func(*world) {
		f.Answers, f.Match = -1, windows
		return func(w *world) { w.sim.Graph.Fail(f) }
	}
	app := func(a simulator.App) func(*world) {
		a.ClientID = simulator.ClientID
		return func(w *world) {
			w.sim.Login.SetApp(a)
			w.sim.Login.ExpireTokens()
		}
	}
	start := func(value string) []string {
		return []string{`start_time_in_utc: "20`, `start_time_in_utc: "` + value + `" # "20`}
	}
	for name, tt := range map[string]struct {
		edits []string
		fail  func(*world)
		pull  bool // it fails a pull, after a first one that has succeeded
	}{
		"InitVariablesError-0001":         {edits: start("yesterday")},
		"InitVariablesError-0002":         {edits: start("2923-10-01T09:01:00Z")},
		"SetupError-0101-wrong-secret":    {fail: app(simulator.App{Secret: "another"})},
		"SetupError-0101-unknown-tenant":  {edits: []string{simulator.TenantID, "00000000-0000-0000-0000-00000000dead"}, fail: func(*world) {}},
		"SetupError-0101-unknown-app":     {edits: []string{simulator.ClientID, "00000000-0000-0000-0000-00000000dead"}, fail: func(*world) {}},
		"SetupError-0101-in-mid-run":      {fail: app(simulator.App{Secret: "another"}), pull: true},
		"SetupError-0102-no-right":        {fail: graph(simulator.Forbidden())},
		"SetupError-0102-fault-of-Azure":  {fail: graph(simulator.Unavailable(503))},
		"ApiError-0401":                   {fail: graph(simulator.Unauthorized()), pull: true},
		"ApiError-0403":                   {fail: graph(simulator.Forbidden()), pull: true},
		"ApiError-0429":                   {fail: graph(simulator.TooManyRequests(1)), pull: true},
		"ApiError-0498":                   {fail: graph(simulator.Unavailable(500)), pull: true},
		"SetupError-0101-login-not-there": {fail: func(w *world) { w.sim.Login.Fail(simulator.Fault{Answers: -1, Status: 503}) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{Backfill: 5, KeepFrames: true}, append(tt.edits, "  internal_events: false\n", "")...)
			if tt.fail != nil && !tt.pull {
				tt.fail(w)
			}
			p := w.run()
			if tt.fail == nil {
				if code := p.Exit(patience); code != 255 {
					t.Errorf("exit %d, want 255", code)
				}
				w.atDevo("devo.collectors.out.local.error", fmt.Sprintf("InitVariablesError [CODE:%s] reason: ", strings.TrimPrefix(name, "InitVariablesError-")))
				golden(t, name+".log", p.Log.String()+w.checkSays(255))
				return
			}
			if tt.pull {
				// Beside the first pull the subscriptions are listed, which is not what is to fail here.
				eventually(t, "two pulls", func() bool { return len(p.Log.Lines("Data collection completed.")) >= 2 })
				tt.fail(w)
			}
			p.says("Sleeping ", " seconds before next retry")
			text := p.input()
			known := strings.SplitN(name, "-", 3)
			w.atDevo("devo.collectors.out.local.error", fmt.Sprintf("%s [CODE:%s] reason: ", known[0], known[1]))
			p.stop()
			golden(t, name+".log", told(text)+w.checkSays(254))
		})
	}
}

// atDevo waits for a line of the collector's own log at the endpoint.
func (w *world) atDevo(tag, text string) {
	w.t.Helper()
	begin := []byte(" " + tag + `: {"msg":"` + text)
	eventually(w.t, tag+" with "+text, func() bool {
		return slices.ContainsFunc(w.sim.Devo.Frames(), func(frame []byte) bool { return bytes.Contains(frame, begin) })
	})
}

// told are the lines from the first error, or what leads to it, to the first wait.
func told(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if len(kept) > 0 || strings.Contains(line, "  ERROR ") || strings.Contains(line, "throttles this principal") {
			kept = append(kept, line)
		}
		if strings.Contains(line, "seconds before next retry") {
			break
		}
	}
	return strings.Join(kept, "")
}

// checkSays is what `collector check` prints as its failure.
func (w *world) checkSays(code int) string {
	w.t.Helper()
	p := w.start(collectorProgram, "check")
	if got := p.Exit(patience); got != code {
		w.t.Errorf("check: exit %d, want %d", got, code)
	}
	return "$ collector check\n" + p.Log.String()
}
