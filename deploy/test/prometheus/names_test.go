// Package prometheus checks that every metric and label which an alarm or the dashboard asks for is one that the
// programs show.
//
// It is a module of its own, outside go.work, so that nothing of Prometheus' own parser reaches the programs.
package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const root = "../../.."

// series are the names of the metrics that are shown, each with the names of its labels.
type series map[string]map[string]bool

// ofTarget are the labels that Prometheus adds to what it scrapes (deploy/prometheus/prometheus.yml).
var ofTarget = []string{"job", "instance", "program"}

func TestNames(t *testing.T) {
	shown := scrape(t)
	alarms, panels := ruleQueries(t), panelQueries(t)
	if len(alarms) < 20 || len(panels) < 20 {
		t.Fatalf("%d alarms and %d queries of the dashboard were found: the files are not read", len(alarms), len(panels))
	}
	for _, queries := range []map[string]string{alarms, panels} {
		for _, where := range slices.Sorted(maps.Keys(queries)) {
			for _, problem := range problems(shown, queries[where]) {
				t.Errorf("%s: %s", where, problem)
			}
		}
	}
	t.Logf("%d alarms, %d queries of the dashboard, %d metrics shown", len(alarms), len(panels), len(shown))
}

// TestWrongNames shows what is found.
func TestWrongNames(t *testing.T) {
	shown := series{"up": {"job": true}, "rows_total": {"input": true}}
	for query, want := range map[string]int{
		`sum by (input) (rate(rows_total[5m]))`:                    0,
		`sum by (input) (rate(row_total[5m]))`:                     1,
		`sum by (output) (rate(rows_total[5m]))`:                   1,
		`rows_total{output="devo"}`:                                1,
		`{__name__=~"rows.*"}`:                                     1,
		`rows_total{input=`:                                        1,
		`up{job="x"} * on (stage) group_left (source) rows_total`:  2,
		`label_replace(rows_total, "stage", "fetcher", "", "")`:    0,
		`max by (stage) (label_replace(up, "stage", "", "", ""))`:  0,
		`rows_total unless on (input) rows_totals{input="a"} == 1`: 1,
	} {
		if got := problems(shown, query); len(got) != want {
			t.Errorf("%s: %q, want %d", query, got, want)
		}
	}
}

// problems names what a query asks for and the programs do not show. A label that groups or matches must be one of a
// metric in the query, or made by label_replace.
func problems(shown series, query string) []string {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	known, used := map[string]bool{}, map[string]bool{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			own, ok := shown[n.Name]
			if !ok {
				found = append(found, fmt.Sprintf("no program shows the metric %q", n.Name))
				return nil
			}
			for label := range own {
				known[label] = true
			}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName && !own[m.Name] {
					found = append(found, fmt.Sprintf("%s has no label %q", n.Name, m.Name))
				}
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				used[label] = true
			}
		case *parser.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				for _, label := range append(m.MatchingLabels, m.Include...) {
					used[label] = true
				}
			}
		case *parser.Call:
			if n.Func.Name == "label_replace" || n.Func.Name == "label_join" {
				if made, ok := n.Args[1].(*parser.StringLiteral); ok {
					known[made.Val] = true
				}
			}
		}
		return nil
	})
	if len(found) > 0 {
		return found // what an unknown metric's labels would be is not known either
	}
	for _, label := range slices.Sorted(maps.Keys(used)) {
		if !known[label] {
			found = append(found, fmt.Sprintf("no metric of the query has the label %q", label))
		}
	}
	return found
}

func ruleQueries(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert string
				Expr  string
			}
		}
	}
	if err := yaml.Unmarshal(read(t, "deploy/prometheus/rules.yml"), &file); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			queries["alarm "+r.Alert] = r.Expr
		}
	}
	return queries
}

// ofGrafana are the variables that Grafana puts into a query.
var ofGrafana = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h")

// asked is the query of a label's values, for a variable of the dashboard.
var asked = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)

func panelQueries(t *testing.T) map[string]string {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(read(t, "deploy/grafana/dashboards/collector.json"), &board); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s asks nothing", p.Title)
		}
		for i, target := range p.Targets {
			queries[fmt.Sprintf("panel %s, query %d", p.Title, i+1)] = ofGrafana.Replace(target.Expr)
		}
	}
	for _, v := range board.Templating.List {
		if v.Type != "query" {
			continue
		}
		var text string
		if err := json.Unmarshal(v.Query, &text); err != nil {
			t.Fatalf("variable %s: %v", v.Name, err)
		}
		parts := asked.FindStringSubmatch(text)
		if parts == nil {
			t.Fatalf("variable %s asks %q", v.Name, text)
		}
		queries["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", parts[2], parts[1])
	}
	return queries
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`)

// scrape runs the real program against its simulator and returns what it shows once alerts are confirmed and the keeper
// has made its round.
func scrape(t *testing.T) series {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(root, "bin/collector"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, "demo", "--rate", "20")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	shown := series{}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		url := address.Find(text)
		if url == nil {
			continue
		}
		if shown = get(t, string(url)); shown["collector_keeper_last_round_timestamp_seconds"] != nil &&
			shown["collector_sender_alert_to_confirmation_seconds_count"] != nil && shown["collector_sender_pending"] != nil {
			shown["up"] = map[string]bool{}
			addElsewhere(t, shown)
			for _, own := range shown {
				for _, label := range ofTarget {
					own[label] = true
				}
			}
			return shown
		}
	}
	text, _ := os.ReadFile(out.Name())
	t.Fatalf("no alert was confirmed within two minutes: %d metrics, %s", len(shown), text)
	return nil
}

// elsewhere are metrics that the demo has no reason to show, with their labels: it signs in with a secret, and its bus
// is embedded. The tests of the programs hold them to these names, which pkg/status has.
var elsewhere = series{
	"collector_fetcher_certificate_expiry_timestamp_seconds": {"input": true, "service": true},
	"collector_bus_certificate_expiry_timestamp_seconds":     {"file": true},
}

func addElsewhere(t *testing.T, shown series) {
	t.Helper()
	names := string(read(t, "pkg/status/figures.go"))
	for name, own := range elsewhere {
		if !strings.Contains(names, `"`+name+`"`) {
			t.Errorf("pkg/status does not name %s", name)
		}
		shown[name] = maps.Clone(own)
	}
}

// get reads /metrics once; nothing while it does not answer.
func get(t *testing.T, url string) series {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	reader := expfmt.NewTextParser(model.UTF8Validation)
	families, err := reader.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	shown := series{}
	for name, family := range families {
		own := map[string]bool{}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				own[l.GetName()] = true
			}
		}
		if family.GetType() != dto.MetricType_HISTOGRAM {
			shown[name] = own
			continue
		}
		shown[name+"_sum"], shown[name+"_count"] = own, maps.Clone(own)
		shown[name+"_bucket"] = maps.Clone(own)
		shown[name+"_bucket"]["le"] = true
	}
	return shown
}
