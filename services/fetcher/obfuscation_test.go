package fetcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/obfuscation"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// maskFunc is a Masker without rules.
type maskFunc func(dst, row []byte) ([]byte, error)

func (f maskFunc) Append(dst, row []byte) ([]byte, error) { return f(dst, row) }
func (maskFunc) Reaches(...string) bool                   { return false }
func (maskFunc) Rows() uint64                             { return 0 }
func (maskFunc) Counts() []obfuscation.Count              { return nil }

func rules(t testing.TB, rules ...config.ObfuscationRule) Masker {
	t.Helper()
	m, err := masker(&config.Config{}, "defender_for_iot", rules)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rule(path string) config.ObfuscationRule {
	return config.ObfuscationRule{Name: strings.Split(path, ".")}
}

// marked stands in every value under a rule, in texts; markedNumber in numbers.
const (
	marked       = "m4rk3r"
	markedNumber = "90071992547409931"
)

// shows reports whether data holds a marker in either case.
func shows(data []byte) bool {
	lower := bytes.ToLower(data)
	return bytes.Contains(lower, []byte(marked)) || bytes.Contains(lower, []byte(markedNumber))
}

// TestNoMarkerReachesTheDisk lets rows with markers under rules through a fetcher on a real server, good and bad
// rows, and looks for the markers in everything that is left: messages, files, log, metrics, spans.
func TestNoMarkerReachesTheDisk(t *testing.T) {
	dir := t.TempDir()
	server := bustest.Server(t, dir)
	b := bustest.Connect(t, server)
	if _, err := b.Provision(t.Context(), bustest.Topology(), false); err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	spans := tracetest.NewSpanRecorder()
	masker := rules(t, rule("id"), rule("subscriptionId"), rule("properties.secrets"), rule("properties.list.*.user"),
		config.ObfuscationRule{Name: []string{"properties", "text"}, StringPatterns: []*regexp.Regexp{regexp.MustCompile(`(?i)m\w*r`)}},
		config.ObfuscationRule{Name: []string{"properties", "number"}, Value: "not of its type"})
	w := newWorld()
	begin := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	const good = 300
	w.with(func() {
		for i := range good {
			a := w.put(fmt.Sprintf("/%s/%d", marked, i), begin.Add(time.Duration(i)*time.Second))
			a.scope = marked
			a.raw = fmt.Sprintf(`{"id":"/M4RK3R/%d","subscriptionId":"m4rk3r","properties":{"n":%d,"secrets":{"a":["m4rk3r",%s],"a":"\u006d4rk3r"},"list":[{"user":"m4rk3r"}],"text":"by M4rk3r \"x\"","number":%s}}`,
				i, i, markedNumber, markedNumber)
		}
		w.put("/"+marked+"/broken", begin).raw = `{"id":"m4rk3r","properties":{"secrets":"m4rk3r"`
		w.put("/"+marked+"/large", begin).raw = `{"properties":{"secrets":"m4rk3r","x":"` + strings.Repeat("x", 33<<20) + `"}}`
		unusable := w.put("/"+marked+"/unusable", begin)
		unusable.raw, unusable.err = `{"subscriptionId":"m4rk3r","properties":{"secrets":"m4rk3r","n":"unusable"}}`, fault.Permanent(&resourcegraph.Unusable{})
		odd := w.put("/"+marked+"/odd", begin)
		odd.raw, odd.err = `{"properties":{"secrets":"m4rk3r","n":"odd"}}`, errors.New("cannot read m4rk3r")
	})
	r := w.start(t, func(o *Options) {
		o.Bus, o.Service.Start, o.Service.Masker = b, begin.Add(-time.Hour), masker
		o.Service.Period = time.Second
		o.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
		o.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	})
	eventually(t, "the rows are read", func() bool { return r.logs.count("The data is up to date!") > 1 })
	r.halt(t)

	messages := map[string]int{}
	dead := map[string]int{}
	for stream, m := range everyMessage(t, b) {
		messages[stream]++
		decoded := bytes.Join([][]byte{m.Data, []byte(m.Subject), fmt.Append(nil, m.Header)}, []byte(" "))
		switch stream {
		case proto.StreamRaw:
			e, err := proto.DecodeEnvelope(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			decoded = fmt.Appendf(decoded, "%s %+v", e.Row, e)
			if !json.Valid(e.Row) || e.Scope != "" || e.AlertID == "" {
				t.Errorf("%s %+v", e.Row, e)
			}
		case proto.StreamDead:
			d, err := proto.DecodeDeadLetter(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			decoded = fmt.Appendf(decoded, "%s %+v", d.Payload, d)
			dead[fmt.Sprintf("%s | %.60s", d.Reason, d.Payload)]++
		}
		if shows(decoded) {
			t.Errorf("stream %s, subject %s: %.300s", stream, m.Subject, decoded)
		}
	}
	if messages[proto.StreamRaw] != good || messages[proto.StreamDead] != 4 || messages[proto.BucketStream(proto.BucketCheckpoints)] == 0 {
		t.Errorf("messages %v, dead letters %v", messages, dead)
	}
	for want, n := range map[string]int{
		"masking the row: no valid JSON at byte 47 of 47 | ": 1, "masking the row: the masked row exceeds 33554432 bytes | ": 1,
		`row 0 of the page (0 bytes)  | {"subscriptionId":"****SANITIZED****","properties":{"secrets`:                                                                                   1,
		`the row cannot be used; why is not shown, since the error's text may hold a value under a rule of obfuscation_data | {"properties":{"secrets":"****SANITIZED****","n":"odd"}}`: 1,
	} {
		if dead[want] != n {
			t.Errorf("%d dead letters %q of %v", dead[want], want, dead)
		}
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if shows(data) || shows([]byte(path)) {
			t.Errorf("file %s shows a marker", path)
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	written, _ := json.Marshal(data)
	for what, text := range map[string]string{
		"log": strings.Join(r.logs.lines, "\n"), "metrics": string(written), "spans": fmt.Sprintf("%+v", tracetest.SpanStubsFromReadOnlySpans(spans.Ended())),
	} {
		if len(text) < 100 || shows([]byte(text)) {
			t.Errorf("%s: %.2000s", what, text)
		}
	}
}

// everyMessage gives all messages of all streams with their stream's name.
func everyMessage(t *testing.T, b *bus.Bus) func(func(string, *jetstream.RawStreamMsg) bool) {
	return func(yield func(string, *jetstream.RawStreamMsg) bool) {
		names := b.JetStream().StreamNames(t.Context())
		for name := range names.Name() {
			s, err := b.JetStream().Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			state := s.CachedInfo().State
			for i := max(state.FirstSeq, 1); i <= state.LastSeq; i++ {
				m, err := s.GetMsg(t.Context(), i)
				if errors.Is(err, jetstream.ErrMsgNotFound) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if !yield(name, m) {
					return
				}
			}
		}
	}
}

func TestVersionHashesAreOfWhatAzureSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().Add(-time.Minute)
		w.put("/a", now).raw = `{"id":"/a","properties":{"user":"one"}}`
		r := w.start(t, func(o *Options) {
			o.Service.Deduplication, o.Service.Masker = DeduplicateVersion, rules(t, rule("properties.user"))
		})
		w.settle(90 * time.Second)
		w.with(func() { w.put("/a", now).raw = `{"id":"/a","properties":{"user":"two"}}` })
		w.settle(2 * time.Minute)
		w.with(func() {
			if len(w.raw) != 2 {
				t.Fatalf("%d rows in RAW", len(w.raw))
			}
			for i, user := range []string{"one", "two"} {
				want, err := proto.HashVersionOf("/a", []byte(`{"id":"/a","properties":{"user":"`+user+`"}}`), nil)
				if e := w.raw[i]; err != nil || e.Hash != want || string(e.Row) != `{"id":"/a","properties":{"user":"****SANITIZED****"}}` {
					t.Errorf("hash %s, want %s, row %s", e.Hash, want, e.Row)
				}
			}
		})
		r.halt(t)
	})
}

// TestNothingOfARuleBesideTheRow: the envelope and the record hold copies of values.
func TestNothingOfARuleBesideTheRow(t *testing.T) {
	for path, want := range map[string]struct{ id, scope, start bool }{
		"id":                      {id: true},
		"subscriptionId":          {scope: true},
		"properties.startTimeUtc": {start: true},
		"properties":              {start: true},
		"*":                       {true, true, true},
		"properties.user":         {},
	} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				start := time.Now().Add(-time.Hour)
				w.put("/A/b", start)
				r := w.start(t, func(o *Options) { o.Service.Masker = rules(t, rule(path)) })
				w.settle(2 * time.Minute)
				w.with(func() {
					e := w.raw[0]
					id, ids := "/a/b", 1
					if want.id {
						id, ids = proto.HashIdentity("/a/b"), 0
					}
					if e.AlertID != id || (e.Scope == "") != want.scope || e.EventTime.IsZero() != want.start || e.Hash != proto.HashIdentity("/a/b") {
						t.Errorf("%+v", e)
					}
					if c := w.checkpoint(); len(c.LastIDs) != ids || !c.LastEventTime.Equal(start) {
						t.Errorf("record %+v", c)
					}
				})
				r.halt(t)
			})
		})
	}
}

func TestRulesThatMaskNothingAreTold(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	counts := map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.putMany(1200, time.Now().Add(-time.Hour), time.Second)
		r := w.start(t, func(o *Options) {
			o.Service.Masker = rules(t, config.ObfuscationRule{Name: []string{"properties", "version"}, Value: "text"}, rule("propertis.version"))
			o.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
		})
		w.settle(5 * time.Minute)
		if n := r.logs.count("WARN obfuscation_data[1] has masked nothing in 1200 rows"); n != 1 || r.logs.count("obfuscation_data[0]") != 0 {
			t.Errorf("told %d times", n)
		}
		if r.logs.count("DEBUG Values masked by obfuscation_data in 1200 rows so far: [0] properties.version: 1200 (1200 misfits); [1] propertis.version: 0 (0 misfits)") == 0 {
			t.Error("no line at debug")
		}
		r.halt(t)
	})
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	for _, m := range data.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && strings.Contains(m.Name, "_obfuscat") {
			for _, p := range sum.DataPoints {
				i, _ := p.Attributes.Value("rule")
				path, _ := p.Attributes.Value("path")
				counts[fmt.Sprintf("%s %d %s", m.Name, i.AsInt64(), path.AsString())] = fmt.Sprint(p.Value, p.Attributes.Len())
			}
		}
	}
	want := map[string]string{
		"collector_fetcher_obfuscated_values_total 0 properties.version":   "1200 4",
		"collector_fetcher_obfuscated_values_total 1 propertis.version":    "0 4",
		"collector_fetcher_obfuscation_misfits_total 0 properties.version": "1200 4",
		"collector_fetcher_obfuscation_misfits_total 1 propertis.version":  "0 4",
	}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("got %v", counts)
	}
}

func TestRulesAreValidated(t *testing.T) {
	for value, want := range map[string]string{"nan": "obfuscation_data[1].value: NaN is no number of JSON", "fine": ""} {
		r := config.ObfuscationRule{Name: []string{"a"}, Value: value}
		if value == "nan" {
			r.Value = nan()
		}
		_, err := masker(&config.Config{}, "defender_for_iot", []config.ObfuscationRule{rule("b"), r})
		var named *fault.Error
		if (want == "") != (err == nil) || err != nil && (!errors.As(err, &named) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func nan() float64 { z := 0.0; return z / z }
