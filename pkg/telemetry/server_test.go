package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// get asks one page on a connection of its own, so that no idle one outlives the test.
func get(t *testing.T, tel *Telemetry, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tel.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func scrape(t *testing.T, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	status, body := get(t, tel, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	if strings.Contains(body, "otel_scope") {
		t.Error("scope labels are there")
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func labels(m *dto.Metric) map[string]string {
	all := map[string]string{}
	for _, l := range m.GetLabel() {
		all[l.GetName()] = l.GetValue()
	}
	return all
}

func TestMetrics(t *testing.T) {
	tel := start(t, Settings{Service: "fetcher", Version: "1.2.3", Instance: "one", Listen: ":0"})
	counter, err := tel.Meter.Int64Counter("rows.received", metric.WithDescription("Rows"))
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 3, metric.WithAttributes(attribute.String("input", "defender_for_iot")))
	latency, err := tel.Meter.Float64Histogram("alert.latency", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(LatencyBuckets...))
	if err != nil {
		t.Fatal(err)
	}
	latency.Record(t.Context(), 90)
	size, err := tel.Meter.Int64Gauge("stream.size", metric.WithUnit("By"))
	if err != nil {
		t.Fatal(err)
	}
	size.Record(t.Context(), 42)

	families := scrape(t, tel)
	rows := families["rows_received_total"].GetMetric()
	if len(rows) != 1 || rows[0].GetCounter().GetValue() != 3 || labels(rows[0])["input"] != "defender_for_iot" || len(labels(rows[0])) != 1 {
		t.Errorf("counter: %v", rows)
	}
	histogram := families["alert_latency_seconds"].GetMetric()
	if len(histogram) != 1 || histogram[0].GetHistogram().GetSampleCount() != 1 || histogram[0].GetHistogram().GetSampleSum() != 90 {
		t.Fatalf("histogram: %v", histogram)
	}
	buckets := map[float64]uint64{}
	for _, b := range histogram[0].GetHistogram().GetBucket() {
		buckets[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	if buckets[60] != 0 || buckets[120] != 1 || buckets[86400] != 1 {
		t.Errorf("buckets: %v", buckets)
	}
	if gauge := families["stream_size_bytes"].GetMetric(); len(gauge) != 1 || gauge[0].GetGauge().GetValue() != 42 {
		t.Errorf("gauge: %v", gauge)
	}
	info := families["collector_build_info"].GetMetric()
	if len(info) != 1 || info[0].GetGauge().GetValue() != 1 || labels(info[0])["go_version"] != runtime.Version() || labels(info[0])["version"] == "" || labels(info[0])["commit"] == "" {
		t.Errorf("build info: %v", info)
	}
	target := families["target_info"].GetMetric()
	if len(target) != 1 || labels(target[0])["service_name"] != "fetcher" || labels(target[0])["service_version"] != "1.2.3" || labels(target[0])["service_instance_id"] != "one" {
		t.Errorf("target: %v", target)
	}
	names := []string{"go_goroutines"}
	if runtime.GOOS == "linux" {
		names = append(names, "process_resident_memory_bytes")
	}
	for _, name := range names {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestEnvironmentNamesTheService(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_SERVICE_NAME", "renamed")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
	tel := startHere(t, Settings{Service: "fetcher", Listen: "127.0.0.1:0"})
	target := scrape(t, tel)["target_info"].GetMetric()
	if len(target) != 1 || labels(target[0])["service_name"] != "renamed" || labels(target[0])["deployment_environment_name"] != "prod" {
		t.Errorf("target: %v", target)
	}
}

func TestMalformedResourceAttributesAreSaidAndSurvived(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "no-equals-sign")
	var out lines
	tel := startHere(t, Settings{Service: "fetcher", LogOutput: &out, Listen: "127.0.0.1:0"})
	if got := strings.Join(out.all(), ""); !strings.Contains(got, "OTEL_RESOURCE_ATTRIBUTES") {
		t.Errorf("log: %q", got)
	}
	if target := scrape(t, tel)["target_info"].GetMetric(); len(target) != 1 || labels(target[0])["service_name"] != "fetcher" {
		t.Errorf("target: %v", target)
	}
}

func TestHealth(t *testing.T) {
	tel := start(t, Settings{Listen: "127.0.0.1:0"})
	for page, register := range map[string]func(string, func() error){"/readyz": tel.Ready, "/healthz": tel.Alive} {
		expect := func(step string, status int, body string) {
			t.Helper()
			if gotStatus, gotBody := get(t, tel, page); gotStatus != status || gotBody != body {
				t.Errorf("%s, %s: got %d %q, want %d %q", page, step, gotStatus, gotBody, status, body)
			}
		}
		var bus error
		expect("nothing registered", 200, "ok\n")
		register("bus", func() error { return bus })
		register("input", func() error { return nil })
		expect("all well", 200, "bus: ok\ninput: ok\n")
		bus = errors.New("not connected\nto nats")
		expect("one fails", 503, "bus: error: not connected\\nto nats\ninput: ok\n")
		bus = nil
		expect("well again", 200, "bus: ok\ninput: ok\n")
		register("bus", func() error { panic("boom") })
		expect("a check that panics", 503, "bus: error: the check panicked: boom\ninput: ok\n")
		register("bus", func() error { register("late", func() error { return nil }); return nil })
		expect("a check that registers", 200, "bus: ok\ninput: ok\n")
		expect("a check that was registered", 200, "bus: ok\ninput: ok\nlate: ok\n")
		register("bus", nil)
		register("late", nil)
		register("absent", nil)
		expect("removed", 200, "input: ok\n")
		register("input", nil)
	}
	if status, text := get(t, tel, "/debug/pprof/goroutine?debug=1"); status != http.StatusOK || !strings.Contains(text, "goroutine profile:") {
		t.Errorf("the stacks: %d %.100q", status, text)
	}
	if status, _ := get(t, tel, "/debug/vars"); status != http.StatusNotFound {
		t.Errorf("an unknown page answers %d", status)
	}
}

func TestStart(t *testing.T) {
	first := start(t, Settings{Listen: "127.0.0.1:0"})
	if err := first.Start(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("second Start: %v", err)
	}
	second, err := New(t.Context(), Settings{Listen: first.Addr(), LogOutput: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Start()
	if err == nil || !strings.Contains(err.Error(), first.Addr()) || !strings.Contains(err.Error(), "telemetry.listen") {
		t.Errorf("address in use: %v", err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Start(); err == nil || !strings.Contains(err.Error(), "after close") {
		t.Errorf("Start after Close: %v", err)
	}
	silent := start(t, Settings{})
	if silent.Addr() != "" {
		t.Errorf("without a listener: %q", silent.Addr())
	}
}

func TestListenAddress(t *testing.T) {
	for listen, want := range map[string]string{
		"": "", ":0": "127.0.0.1:0", ":8080": "127.0.0.1:8080", "0.0.0.0:80": "0.0.0.0:80", "[::]:0": "[::]:0", "localhost:9": "localhost:9",
	} {
		if got, err := listenAddress(listen); err != nil || got != want {
			t.Errorf("%q: got %q, %v", listen, got, err)
		}
	}
	for _, listen := range []string{"8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "::1:80"} {
		if _, err := New(t.Context(), Settings{Listen: listen, LogOutput: io.Discard}); err == nil || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%q: got %v", listen, err)
		}
	}
}

func TestCloseEndsTheListenerAndIsRepeatable(t *testing.T) {
	tel := start(t, Settings{Listen: "127.0.0.1:0"})
	// A client that never finishes its request must not hold Close up.
	conn, err := net.Dial("tcp", tel.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /metrics HTTP/1.1\r\nHost:")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := tel.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if conn, err := net.Dial("tcp", tel.Addr()); err == nil {
		conn.Close()
		t.Error("still listening after Close")
	}
	tel.Logger.LogAttrs(context.Background(), slog.LevelInfo, "the log works after Close")
}

func TestBuildVersion(t *testing.T) {
	version, commit, goVersion := BuildVersion()
	if version == "" || commit == "" || goVersion != runtime.Version() {
		t.Errorf("got %q %q %q", version, commit, goVersion)
	}
}

// The lines of /readyz are a metric, too, so that an alarm needs no second way to ask.
func TestReadyIsAMetric(t *testing.T) {
	tel := start(t, Settings{Service: "sender", Listen: ":0"})
	tel.Ready("bus", func() error { return nil })
	tel.Ready("sender", func() error { return errors.New("the endpoint is away") })
	tel.Ready("broken", func() error { panic("x") })
	got := map[string]float64{}
	for _, m := range scrape(t, tel)["collector_ready"].GetMetric() {
		got[labels(m)["part"]] = m.GetGauge().GetValue()
	}
	if len(got) != 3 || got["bus"] != 1 || got["sender"] != 0 || got["broken"] != 0 {
		t.Errorf("%v", got)
	}
	tel.Ready("bus", nil)
	if n := len(scrape(t, tel)["collector_ready"].GetMetric()); n != 2 {
		t.Errorf("%d parts after one was removed", n)
	}
}
