package status

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

func newTelemetry(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Settings{Service: "test", LogOutput: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	return tel
}

// A process tells what fails, what is not ready and its figures, and is gone from the bucket after an orderly stop.
func TestReporter(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	tel := newTelemetry(t)
	incident := telemetry.NewIncident(telemetry.WithThread(tel.Logger, "a", "b"), "delivery to devo")
	incident.Report(fault.Setup(101, "no token").WithHint("do this"))
	incident.Report(fault.Setup(101, "no token").WithHint("do this"))
	tel.Ready("bus", func() error { return errors.New("away") })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	r := Reporter{Bus: b, Telemetry: tel, Program: "sender", Instance: "vm-1"}
	go func() { defer close(ended); r.Run(ctx) }()
	var p Process
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		all, _, err := Read(bustest.Context(t), b)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 {
			p = all[0]
			break
		}
		if time.Now().After(end) {
			t.Fatal("no record")
		}
	}
	if p.Program != "sender" || p.Instance != "vm-1" || p.NotReady["bus"] != "away" || len(p.Failures) != 1 {
		t.Fatalf("%+v", p)
	}
	if f := p.Failures[0]; f.What != "delivery to devo" || f.Type != fault.TypeSetup || f.Code != 101 || f.Hint != "do this" || f.Count != 2 || f.Warning {
		t.Errorf("%+v", f)
	}
	if f, ok := p.Figure(Memory); !ok || f.Value <= 0 {
		t.Errorf("memory %+v", f)
	}
	stop()
	<-ended
	if all, _, err := Read(bustest.Context(t), b); err != nil || len(all) != 0 {
		t.Errorf("after the stop: %v, %v", all, err)
	}
}

// Rates are the growth over the last minute; a failure that is over is told no more.
func TestRecord(t *testing.T) {
	tel := newTelemetry(t)
	counter, err := tel.Meter.Int64Counter("collector_sender_confirmed")
	if err != nil {
		t.Fatal(err)
	}
	label := metric.WithAttributes(attribute.String("output", "devo"))
	began := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	r := Reporter{Telemetry: tel, Program: "sender", Instance: "vm-1", started: began}
	rate := func(after time.Duration) float64 {
		record, err := r.record(began.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		f, ok := Process{ProcessStatus: *record}.Figure(Confirmed, "output", "devo")
		if !ok {
			t.Fatalf("no figure: %+v", record.Figures)
		}
		return f.PerSecond
	}
	counter.Add(t.Context(), 100, label)
	if got := rate(10 * time.Second); got != 10 {
		t.Errorf("since the start %v/s", got)
	}
	for after := 20 * time.Second; after <= time.Minute; after += 10 * time.Second {
		counter.Add(t.Context(), 20, label)
		rate(after)
	}
	for after := 70 * time.Second; after <= 3*time.Minute; after += 10 * time.Second {
		if got := rate(after); after >= 130*time.Second && got != 0 {
			t.Errorf("after %v still %v/s", after, got)
		}
	}
	incident := telemetry.NewIncident(tel.Logger, "x")
	incident.Report(errors.New("y"))
	if len(tel.Failures.List()) != 1 {
		t.Error("a failure is not told")
	}
	incident.Resolve()
	if left := tel.Failures.List(); len(left) != 0 {
		t.Errorf("still %+v", left)
	}
}

// What cannot be read is named and hides nothing; a server that has no bucket says so.
func TestRead(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	ctx := bustest.Context(t)
	good := proto.ProcessStatus{Version: 1, Program: "dedup", Instance: "vm-2"}
	data, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for instance, record := range map[string][]byte{"vm-2": data, "vm-3": []byte(`{"version":2,"program":"dedup","instance":"vm-3"}`)} {
		if err := b.WriteStatus(ctx, "dedup", instance, record); err != nil {
			t.Fatal(err)
		}
	}
	all, _, err := Read(ctx, b)
	if len(all) != 1 || all[0].Instance != "vm-2" || !all[0].Heard() || !errors.Is(err, proto.ErrNewerMajor) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := b.JetStream().DeleteStream(ctx, proto.BucketStream(proto.BucketStatus)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(ctx, b); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("without the bucket: %v", err)
	}
	if err := b.WriteStatus(ctx, "dedup", "vm-2", data); err == nil || fault.Hint(err) == "" {
		t.Errorf("writing without the bucket: %v", err)
	}
}
