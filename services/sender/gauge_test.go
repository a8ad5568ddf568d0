package sender

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"defenderiot/pkg/bus/bustest"
)

// What an alarm looks at is there from the start on, and follows the output.
func TestGaugesOfAnOutput(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	m, err := newMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(Options{Bus: bustest.New(t, bustest.Topology("devo_1")), Instance: "s", Logger: bustest.Logger()}, OutputSettings{Name: "devo_1"}, m)
	ctx := bustest.Context(t)
	want := func(when string, want map[string]int64) {
		t.Helper()
		o.gauge(ctx)
		var data metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &data); err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, scope := range data.ScopeMetrics {
			for _, metric := range scope.Metrics {
				var points []metricdata.DataPoint[int64]
				switch d := metric.Data.(type) {
				case metricdata.Gauge[int64]:
					points = d.DataPoints
				case metricdata.Sum[int64]:
					points = d.DataPoints
				}
				for _, p := range points {
					if v, _ := p.Attributes.Value(attribute.Key("output")); v.AsString() == "devo_1" {
						got[metric.Name] = p.Value
					}
				}
			}
		}
		for name, value := range want {
			if v, ok := got["collector_sender_"+name]; !ok || v != value {
				t.Errorf("%s: %s is %d (%v), want %d", when, name, v, ok, value)
			}
		}
	}
	m.begin(o.label)
	want("at the start", map[string]int64{"reachable": 1, "unproved": 0, "unconfirmed": 0, "confirmed": 0, "resent": 0, "dead": 0, "unclean": 0})
	o.fail(errors.New("refused"))
	for range unansweredLimit {
		o.proof.noAnswer(ctx)
	}
	want("in trouble", map[string]int64{"reachable": 0, "unproved": 1})
	o.recover()
	o.proof.answered(ctx)
	want("after it", map[string]int64{"reachable": 1, "unproved": 0})
}
