package fetcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"defenderiot/pkg/bus"
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
				if n := d.DataPoints[0].Attributes.Len(); len(d.DataPoints) != 1 || n != 2 {
					t.Errorf("%s has %d points with %d labels", m.Name, len(d.DataPoints), n)
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
		"collector_fetcher_new_total":                1501,
		"collector_fetcher_unreadable_subscriptions": 1,
		"collector_fetcher_rows_without_start":       1,
		"collector_fetcher_leader":                   0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	for _, name := range []string{"rows_total", "duplicates_total", "pages_total", "pull_duration_seconds", "position_timestamp_seconds", "lag_seconds"} {
		if got["collector_fetcher_"+name] <= 0 {
			t.Errorf("%s is %v", name, got["collector_fetcher_"+name])
		}
	}
	// Two pages of rows and the null starts, each under a trace of its own.
	if len(parents) != 3 || len(spans.Ended()) < 3 {
		t.Errorf("%d traces in RAW, %d spans", len(parents), len(spans.Ended()))
	}
}
