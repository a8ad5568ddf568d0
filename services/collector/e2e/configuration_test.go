//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"defenderiot/services/collector/e2e/internal/child"
	"defenderiot/services/simulator"
)

// A configuration that is wrong is told by file and line, with exit code 255, and nothing is started.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edits []string
		want  string // regular expression
	}{
		"unknown key in a service": {[]string{"overlap_in_minutes: 1", "overlap_in_minute: 1"}, `config\.yaml:\d+:\d+: .*overlap_in_minute\b.*overlap_in_minutes`},
		"number out of range":      {[]string{"request_period_in_seconds: 1", "request_period_in_seconds: 0"}, `config\.yaml:\d+:\d+: .*request_period_in_seconds.*0`},
		"not YAML":                 {[]string{"outputs:", "outputs: ]"}, `config\.yaml:\d+`},
		"start time in the future": {[]string{`start_time_in_utc: "20`, `start_time_in_utc: "29`}, `InitVariablesError \[CODE:0002\] reason: Invalid start_time_in_utc: 29.*Must be in the past`},
		"start time that is none":  {[]string{`start_time_in_utc: "20`, `start_time_in_utc: "x20`}, `InitVariablesError \[CODE:0001\] reason: Invalid start_time_in_utc: x20.*Must be in parseable datetime format`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{Backfill: 1}, tt.edits...)
			want := regexp.MustCompile(tt.want)
			for _, command := range [][]string{
				{collectorProgram, "run"}, {collectorProgram, "check"}, {collectorProgram, "--validate"},
				{collectorProgram, "status"}, {collectorProgram, "provision"},
				{fetcherProgram}, {dedupProgram}, {senderProgram},
			} {
				p := w.start(command[0], command[1:]...)
				if code := p.Exit(patience); code != 255 || !want.MatchString(p.Log.String()) {
					t.Errorf("%v: exit %d, want 255 with %s:\n%s", command, code, tt.want, p.Log.String())
				}
			}
			w.untouched()
		})
	}
	t.Run("no file", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, simulator.Options{})
		p := output(t, w.dir, collectorProgram, "run", "--config", "other.yaml")
		if p.Code() != 255 || !strings.Contains(p.Log.String(), "other.yaml") {
			t.Errorf("exit %d:\n%s", p.Code(), p.Log.String())
		}
		w.untouched()
	})
}

// untouched demands that no program left a state, asked Azure or reached the endpoint.
func (w *world) untouched() {
	w.t.Helper()
	if _, err := os.Stat(filepath.Join(w.dir, "state")); !os.IsNotExist(err) {
		w.t.Errorf("there is a state folder (%v)", err)
	}
	if s := w.sim.Stats(); s.Tokens != 0 || s.Devo.Connections != 0 {
		w.t.Errorf("%d tokens were asked for and %d connections made", s.Tokens, s.Devo.Connections)
	}
}

// The check passes against a world that works, and names what does not.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fail  func(w *world)
		texts []string // on stderr
	}{
		"all is well":  {func(*world) {}, nil},
		"wrong secret": {func(w *world) { w.sim.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: "another"}) }, []string{"SetupError [CODE:0101] reason: Failed to fetch OAuth token from https://", "AADSTS7000215", "hint: client_secret is wrong"}},
		"no right":     {func(w *world) { w.fails(simulator.Forbidden()) }, []string{"SetupError [CODE:0102] reason: Failed to fetch data from https://", "Source is not pullable.", "Security Reader"}},
		"garbage":      {func(w *world) { w.fails(simulator.Garbage()) }, []string{"SetupError [CODE:0102] reason: Failed to fetch data from https://"}},
		"Devo away":    {func(w *world) { w.sim.Devo.Away() }, []string{"refused", "hint: "}},
		"client certificate refused": {func(w *world) { w.sim.Devo.Fail(simulator.DevoFault{Refuse: true, Connections: -1}) },
			[]string{"refused our client certificate", "hint: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{Backfill: 3})
			tt.fail(w)
			code, passed := 0, true
			if tt.texts != nil {
				code, passed = 254, false
			}
			for _, arguments := range [][]string{{"check"}, {"--validate"}} {
				p := w.start(collectorProgram, arguments...)
				if got := p.Exit(patience); got != code || !child.All(p.Log.String(), tt.texts) {
					t.Errorf("%v: exit %d, want %d with %q:\n%s%s", arguments, got, code, tt.texts, p.Stdout.String(), p.Log.String())
				}
			}
			p := w.start(collectorProgram, "check", "--json")
			var report struct {
				Passed *bool `json:"passed"`
				Steps  []struct {
					Step   string `json:"step"`
					Passed *bool  `json:"passed"`
				} `json:"steps"`
			}
			if got := p.Exit(patience); got != code {
				t.Errorf("check --json: exit %d, want %d", got, code)
			}
			if err := json.Unmarshal([]byte(p.Stdout.String()), &report); err != nil || report.Passed == nil || *report.Passed != passed || len(report.Steps) < 3 {
				t.Errorf("check --json: %v:\n%s", err, p.Stdout.String())
			}
		})
	}
}

// fails spoils every answer of Resource Graph.
func (w *world) fails(f simulator.Fault) {
	f.Answers = -1
	w.sim.Graph.Fail(f)
}

// What a program says about itself.
func TestSchemaAndVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := output(t, dir, collectorProgram, "schema")
	var schema struct {
		Schema     string         `json:"$schema"`
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal([]byte(p.Stdout.String()), &schema); err != nil || p.Code() != 0 {
		t.Errorf("collector schema: exit %d, %v", p.Code(), err)
	}
	for _, section := range []string{"globals", "outputs", "inputs", "bus", "telemetry"} {
		if schema.Properties[section] == nil {
			t.Errorf("the schema has no %s", section)
		}
	}
	form := regexp.MustCompile(`\bcommit \S+, go1\.\d+`)
	for _, name := range []string{collectorProgram, fetcherProgram, dedupProgram, senderProgram, simulatorProgram} {
		if p := output(t, dir, name, "--version"); p.Code() != 0 || !form.MatchString(p.Stdout.String()) {
			t.Errorf("%s --version: exit %d, %q", name, p.Code(), p.Stdout.String()+p.Log.String())
		}
	}
	if p := output(t, dir, collectorProgram, "no-such-command"); p.Code() != 1 || p.Log.String() == "" {
		t.Errorf("an unknown command: exit %d, %q", p.Code(), p.Log.String())
	}
}
