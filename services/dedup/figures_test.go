package dedup

import (
	"context"
	"fmt"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// TestFigures: what the keeper shows of streams and outputs, and that what was removed is shown no more.
func TestFigures(t *testing.T) {
	topology := bustest.Topology("devo_1", "devo_2")
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	reader := sdkmetric.NewManualReader()
	k, err := NewKeeper(b, topology, bustest.Logger(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() map[string]float64 {
		t.Helper()
		var data metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &data); err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, scope := range data.ScopeMetrics {
			for _, m := range scope.Metrics {
				for _, p := range m.Data.(metricdata.Gauge[float64]).DataPoints {
					label := ""
					for _, l := range p.Attributes.ToSlice() {
						label += "/" + l.Value.AsString()
					}
					got[m.Name+label] = p.Value
				}
			}
		}
		return got
	}
	round := func() map[string]float64 {
		t.Helper()
		if err := k.round(ctx); err != nil {
			t.Fatal(err)
		}
		return shown()
	}
	if got := shown(); len(got) != 0 {
		t.Errorf("before the first round: %v", got)
	}
	var msgs []bus.Message
	for i := range 3 {
		msgs = append(msgs, bus.Message{Subject: fmt.Sprint("alerts.unique.a.b.c.1.", i), Data: []byte("x")})
	}
	if err := b.PublishBatch(ctx, proto.StreamUnique, msgs); err != nil {
		t.Fatal(err)
	}
	if err := b.DeadLetter(ctx, proto.DeadLetter{Stage: proto.StageDedup, Reason: "by hand", Stream: proto.StreamRaw, Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	ledgers := map[string]*ledger.Ledger{"devo_1": ledger.Open(b, "devo_1", "s"), "devo_2": ledger.Open(b, "devo_2", "s")}
	confirm := func(output string, seqs ...uint64) {
		t.Helper()
		l := ledgers[output]
		if _, err := l.Begin(ctx, seqs); err != nil {
			t.Fatal(err)
		}
		if err := l.Confirm(ctx, seqs); err != nil {
			t.Fatal(err)
		}
	}
	confirm("devo_1", 1, 2, 3)
	confirm("devo_2", 2)
	const oldest = "collector_output_oldest_unconfirmed_seconds/"
	before := time.Now()
	got := round()
	if got[oldest+"devo_1"] != 0 || got[oldest+"devo_2"] <= 0 {
		t.Errorf("waiting: %v", got)
	}
	for name, want := range map[string]float64{
		"collector_stream_messages/UNIQUE": 3, "collector_stream_messages/RAW": 0, "collector_dead_letters": 1, "collector_stream_lost_messages/UNIQUE": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	for _, stream := range []string{"UNIQUE", "DEAD", "ledgers"} {
		if got["collector_stream_size_bytes/"+stream] <= 0 {
			t.Errorf("%s has no size: %v", stream, got)
		}
	}
	if _, ok := got["collector_stream_fill_ratio/hashes"]; ok || got["collector_stream_fill_ratio/DEAD"] <= 0 {
		t.Errorf("fill: %v", got)
	}
	if at := got["collector_keeper_last_round_timestamp_seconds"]; at < float64(before.Unix()) {
		t.Errorf("last round at %v", at)
	}
	// Confirmed up to a gap: it is the gap's first that waits.
	confirm("devo_2", 1)
	view, err := ledger.Read(ctx, b, "devo_2")
	if err != nil || view.FirstUnconfirmed() != 3 {
		t.Errorf("first unconfirmed: %d, %v", view.FirstUnconfirmed(), err)
	}
	topology.Outputs = topology.Outputs[:1]
	if _, err := b.Provision(ctx, topology, true); err != nil {
		t.Fatal(err)
	}
	if _, ok := round()[oldest+"devo_2"]; ok {
		t.Error("an output that was removed is still shown")
	}
}
