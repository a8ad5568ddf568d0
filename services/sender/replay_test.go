package sender_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
	"defenderiot/services/sender"
)

// sighting is an alert as it is put into UNIQUE.
type sighting struct {
	id         string
	severity   string
	start      time.Time
	generation uint64
}

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func put(t testing.TB, b *bus.Bus, alerts ...sighting) {
	t.Helper()
	var msgs []bus.Message
	for _, a := range alerts {
		a.generation = max(a.generation, 1)
		e := proto.Envelope{
			Row:  fmt.Appendf(nil, `{"id":%q,"generation":%d,"properties":{"severity":%q,"tags":["a",{"n":7}]},"pad":%q}`, a.id, a.generation, a.severity, strings.Repeat("x", 300)),
			Hash: proto.HashIdentity(a.id), HashVersion: 1, AlertID: a.id, EventTime: a.start, Source: source, Generation: a.generation,
			PullingID: 1, PullStart: day, FetchTime: day, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
		}
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, bus.Message{Subject: proto.UniqueSubject(source, a.generation, e.Hash), Data: data, ExpectEmpty: true})
	}
	if err := b.PublishBatch(bustest.Context(t), proto.StreamUnique, msgs); err != nil {
		t.Fatal(err)
	}
}

// series is n alerts, one a second from start on.
func series(prefix string, n int, start time.Time) (alerts []sighting, ids []string) {
	for i := range n {
		id := fmt.Sprintf("%s-%d", prefix, i)
		alerts = append(alerts, sighting{id: id, severity: "High", start: start.Add(time.Duration(i) * time.Second)})
		ids = append(ids, id)
	}
	return alerts, ids
}

// order starts a job as the command does.
func order(t testing.TB, b *bus.Bus, output string, w replay.Window, rate int) replay.Entry {
	t.Helper()
	ctx := bustest.Context(t)
	s, err := replay.Scan(ctx, b, w, func(uint64, uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	e, err := replay.Start(ctx, b, proto.Job{
		ID: replay.Base(proto.JobReplay, output, t.Name()), Kind: proto.JobReplay, Output: output, Stream: proto.StreamUnique, Rate: rate,
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func whole() replay.Window {
	return replay.Window{From: day, To: day.AddDate(1, 0, 0), By: proto.JobByStart}
}

// done waits until the job is.
func done(t testing.TB, b *bus.Bus, id string) proto.JobResult {
	t.Helper()
	ctx := bustest.Context(t)
	for {
		e, err := replay.Read(ctx, b, id)
		if err == nil && e.State == proto.JobDone {
			return *e.Result
		}
		if ctx.Err() != nil {
			t.Fatalf("job %+v, %v", e.Job, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// times counts how often each alert arrived.
func (r *rig) times(t testing.TB) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, f := range r.devo.Frames() {
		_, rest, _ := strings.Cut(string(f), `{"id":"`)
		id, _, found := strings.Cut(rest, `"`)
		if !found {
			t.Fatalf("frame %q", f)
		}
		out[id]++
	}
	return out
}

// expect fails unless exactly ids arrived as often as n says, and every other alert as often as others says.
func (r *rig) expect(t testing.TB, ids []string, n, others int) {
	t.Helper()
	wrong := 0
	for id, got := range r.times(t) {
		want := others
		if slices.Contains(ids, id) {
			want = n
		}
		if got != want && wrong < 5 {
			wrong++
			t.Errorf("%s arrived %d times, want %d", id, got, want)
		}
	}
	if wrong == 0 && len(ids) > 0 && r.times(t)[ids[0]] != n {
		t.Errorf("%s did not arrive", ids[0])
	}
}

func (r *rig) settings() sender.OutputSettings {
	return sender.OutputSettings{Name: output, Endpoint: r.endpoint, Connections: 2, RotateEvents: 2500, RotateAfter: 5 * time.Second}
}

func TestReplaySendsTheWindowOnceMore(t *testing.T) {
	r := newRig(t)
	before, _ := series("before", 500, day.AddDate(0, 0, -1))
	in, ids := series("in", 3000, day)
	after, _ := series("after", 500, day.AddDate(0, 0, 1))
	put(t, r.bus, slices.Concat(before, in, after)...)
	stop := start(t, r.bus, r.settings())
	settled(t, r.bus, 4000)
	job := order(t, r.bus, output, replay.Window{From: day, To: day.Add(3000 * time.Second), By: proto.JobByStart}, 0)
	if job.Selected != 3000 || job.First != 501 || job.Last != 3500 {
		t.Errorf("job %+v", job.Job)
	}
	got := done(t, r.bus, job.ID)
	stop()
	r.expect(t, ids, 2, 1)
	if (got != proto.JobResult{Confirmed: 3000}) {
		t.Errorf("result %+v", got)
	}
	if v := settled(t, r.bus, 4000); v.Counters.Confirmed != 4000 || v.Counters.Resent != 0 {
		t.Errorf("the output's own ledger: %+v", v.Counters)
	}
	// Byte for byte the frames of the first time.
	frames := map[string]int{}
	for _, f := range r.devo.Frames() {
		frames[string(f)]++
	}
	if len(frames) != 4000 {
		t.Errorf("%d different frames", len(frames))
	}
}

var _ = context.Background
