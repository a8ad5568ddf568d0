package fetcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/certificate"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

func TestMetricsAndTraces(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	parents := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.putMany(1500, time.Now().Add(-10*time.Hour), time.Second)
		w.put("/n", time.Time{})
		w.publish = func(msgs []bus.Message) error {
			for _, m := range msgs {
				if v := m.Header[proto.HeaderTraceparent]; len(v) == 1 {
					parents[v[0]] = true
				} else {
					t.Errorf("header %v", m.Header)
				}
			}
			return nil
		}
		r := w.start(t, func(o *Options) {
			o.Meter, o.Tracer = meter, tracer
			o.Service.Subscriptions = []string{"sub-1", "sub-2"}
			o.Certificates = func(now time.Time) ([]certificate.Validity, error) {
				return []certificate.Validity{{Kind: "client_certificate", Path: "app.pem", End: now.Add(time.Hour)}}, nil
			}
		})
		w.settle(2 * time.Minute)
		r.halt(t)
	})
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				got[m.Name] = float64(d.DataPoints[0].Value)
				points, labels := 1, 2
				if strings.HasSuffix(m.Name, "_failures_total") {
					points, labels = len(failureCodes)+1, 3 // shown from 0 on
				}
				if n := d.DataPoints[0].Attributes.Len(); len(d.DataPoints) != points || n != labels {
					t.Errorf("%s has %d points with %d labels, want %d and %d", m.Name, len(d.DataPoints), n, points, labels)
				}
			case metricdata.Gauge[int64]:
				got[m.Name] = float64(d.DataPoints[0].Value)
			case metricdata.Gauge[float64]:
				got[m.Name] = d.DataPoints[0].Value
			case metricdata.Histogram[float64]:
				got[m.Name] = float64(d.DataPoints[0].Count)
			}
		}
	}
	for name, want := range map[string]float64{
		"collector_fetcher_new_total":                      1501,
		"collector_fetcher_unreadable_subscriptions":       1,
		"collector_fetcher_rows_without_start":             1,
		"collector_fetcher_leader":                         0,
		"collector_fetcher_active_since_timestamp_seconds": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	for _, name := range []string{"rows_total", "duplicates_total", "pages_total", "pull_duration_seconds", "position_timestamp_seconds", "lag_seconds", "last_page_timestamp_seconds", "certificate_expiry_timestamp_seconds"} {
		if got["collector_fetcher_"+name] <= 0 {
			t.Errorf("%s is %v", name, got["collector_fetcher_"+name])
		}
	}
	// Two pages of rows and the null starts, each under a trace of its own.
	if len(parents) != 3 || len(spans.Ended()) < 3 {
		t.Errorf("%d traces in RAW, %d spans", len(parents), len(spans.Ended()))
	}
}

// A failure counts under its code if docs/errors.md has it, else under "other": whatever Azure answers, the label stays
// bounded.
func TestFailuresByCode(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	m, err := newMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"), proto.Source{Input: "i", Service: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{fault.API(401, "x"), fmt.Errorf("behind: %w", fault.API(401, "x")), fault.API(418, "x"), fault.Pull(302, "x"), errors.New("none")} {
		m.fail(m.failures, err)
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, metric := range scope.Metrics {
			if metric.Name != "collector_fetcher_pull_failures_total" {
				continue
			}
			for _, p := range metric.Data.(metricdata.Sum[int64]).DataPoints {
				code, _ := p.Attributes.Value("code")
				got[code.AsString()] = p.Value
			}
		}
	}
	if len(got) != len(failureCodes)+1 || got["401"] != 2 || got["302"] != 1 || got["other"] != 2 || got["403"] != 0 {
		t.Errorf("%v", got)
	}
}
