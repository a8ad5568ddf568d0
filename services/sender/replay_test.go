package sender_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
	"defenderiot/services/sender"
	"defenderiot/services/simulator"
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
	t.Parallel()
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

func TestReplayWindows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	first, firstIDs := series("first", 20, day)
	put(t, r.bus, first...)
	time.Sleep(20 * time.Millisecond)
	between := time.Now()
	time.Sleep(20 * time.Millisecond)
	low := sighting{id: "low", severity: "Low", start: day.Add(time.Hour)}
	second, _ := series("second", 20, day.AddDate(0, 0, -30)) // late: started long before the first ones
	second[3].start = time.Time{}
	again := []sighting{first[4], first[5]}
	again[0].generation, again[1].generation = 4, 3
	again[0].severity = "Low"
	put(t, r.bus, slices.Concat(second, []sighting{low}, again)...)
	if _, err := r.bus.JetStream().Publish(ctx, "alerts.unique.x.y.z.1.junk", []byte("junk")); err != nil {
		t.Fatal(err)
	}

	condition := func(text string) replay.Condition {
		c, err := replay.ParseCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	year := replay.Window{From: day, To: day.AddDate(1, 0, 0), By: proto.JobByStart}
	where := func(texts ...string) replay.Window {
		w := year
		for _, text := range texts {
			w.Where = append(w.Where, condition(text))
		}
		return w
	}
	for name, tt := range map[string]struct {
		window replay.Window
		want   string // the set, in ranges
	}{
		// 1-20 first, 21-40 second, 41 low, 42 and 43 again; of first-4 and first-5 only those.
		"by start":               {year, "[{1 4} {7 20} {41 43}]"},
		"the end is not in it":   {replay.Window{From: day, To: day.Add(3 * time.Second), By: proto.JobByStart}, "[{1 3}]"},
		"by start, long ago":     {replay.Window{From: day.AddDate(0, 0, -40), To: day, By: proto.JobByStart}, "[{21 23} {25 40}]"},
		"by stored":              {replay.Window{From: between, To: time.Now().Add(time.Hour), By: proto.JobByStored}, "[{21 43}]"},
		"by stored, before":      {replay.Window{From: between.Add(-time.Hour), To: between, By: proto.JobByStored}, "[{1 20}]"},
		"by stored, all":         {replay.Window{From: between.Add(-time.Hour), To: time.Now().Add(time.Hour), By: proto.JobByStored}, "[{1 4} {7 43}]"},
		"by stored, nothing":     {replay.Window{From: time.Now().Add(time.Hour), To: time.Now().Add(2 * time.Hour), By: proto.JobByStored}, "[]"},
		"a severity":             {where("properties.severity=Low"), "[{41 42}]"},
		"of its newest only":     {where("properties.severity=High"), "[{1 4} {7 20} {43 43}]"},
		"two conditions":         {where("properties.severity=Low", "id=low"), "[{41 41}]"},
		"two that exclude":       {where("properties.severity=Low", "properties.severity=High"), "[]"},
		"within a list":          {where("properties.tags.n=7", "id=low"), "[{41 41}]"},
		"an element of a list":   {where("properties.tags=a", "id=low"), "[{41 41}]"},
		"a number":               {where("generation=4"), "[{42 42}]"},
		"a number is no text":    {where("generation=4.0"), "[]"},
		"an object has no value": {where("properties="), "[]"},
		"no such field":          {where("properties.nothing=1"), "[]"},
		"case counts":            {where("properties.severity=low"), "[]"},
		"the input":              {where("input=defender_for_iot", "id=low"), "[{41 41}]"},
		"another input":          {where("input=other"), "[]"},
		"the service":            {where("service=iot_security_alerts", "id=low"), "[{41 41}]"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := replay.Scan(ctx, r.bus, tt.window, func(uint64, uint64) {})
			if got := fmt.Sprint(s.Sequences.Ranges()); err != nil || got != tt.want {
				t.Errorf("%s, %v, want %s", got, err, tt.want)
			}
			if (s.Bytes > 0) != (s.Sequences.Len() > 0) {
				t.Errorf("%d bytes", s.Bytes)
			}
		})
	}
	s, err := replay.Scan(ctx, r.bus, year, func(uint64, uint64) {})
	if err != nil || s.Older != 2 || s.WithoutStart != 1 || s.Unreadable != 1 {
		t.Errorf("%+v, %v", s, err)
	}

	// The selection is what is sent, and its bytes are the frames'.
	stop := start(t, r.bus, r.settings())
	settled(t, r.bus, 43)
	job := order(t, r.bus, output, year, 0)
	result := done(t, r.bus, job.ID)
	stop()
	var size uint64
	seen := map[string]bool{}
	for _, f := range r.devo.Frames() {
		if text := string(f); seen[text] {
			size += uint64(len(f))
		} else {
			seen[text] = true
		}
	}
	if result.Confirmed != 21 || result.Missing != 0 || size+21 != job.Bytes && size != job.Bytes {
		t.Errorf("%+v, %d bytes of %d", result, size, job.Bytes)
	}
	counts := r.times(t)
	for i, id := range firstIDs {
		want := 2
		if i == 4 || i == 5 {
			want = 3 // two generations live, and the newest again
		}
		if counts[id] != want {
			t.Errorf("%s arrived %d times, want %d", id, counts[id], want)
		}
	}
	if counts["low"] != 2 || counts["second-1"] != 1 {
		t.Errorf("%v", counts)
	}
}

func TestReplayToOneOfTwoOutputs(t *testing.T) {
	t.Parallel()
	first, second := newRig(t), newRig(t)
	b := bustest.New(t, bustest.Topology("devo_1", "devo_2"))
	alerts, ids := series("a", 300, day)
	put(t, b, alerts...)
	one, two := first.settings(), second.settings()
	one.Name, two.Name = "devo_1", "devo_2"
	stop := start(t, b, one, two)
	settledAt(t, b, "devo_1", 300)
	settledAt(t, b, "devo_2", 300)
	done(t, b, order(t, b, "devo_2", whole(), 0).ID)
	stop()
	first.expect(t, ids, 1, 0)
	second.expect(t, ids, 2, 0)
}

// TestReplayUnderRestarts has three senders that are stopped and started at any time while a job runs, and an
// endpoint that breaks connections: everything arrives once more, repeats are counted, nothing else comes.
func TestReplayUnderRestarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alerts, ids := series("in", 12_000, day)
	outside, _ := series("outside", 1000, day.AddDate(0, 0, -3))
	// Between the others, so that what is selected lies in many stretches.
	var mixed []sighting
	for i, a := range alerts {
		mixed = append(mixed, a)
		if i%12 == 0 {
			mixed = append(mixed, outside[i/12])
		}
	}
	put(t, r.bus, mixed...)
	stop := start(t, r.bus, r.settings())
	settled(t, r.bus, 13_000)
	stop()
	job := order(t, r.bus, output, replay.Window{From: day, To: day.AddDate(0, 0, 1), By: proto.JobByStart}, 0)
	const broken = 6
	r.devo.Fail(simulator.DevoFault{AfterFrames: 900, Connections: broken, Stall: 300 * time.Millisecond, End: simulator.Reset})
	for range 4 {
		var stops []func()
		for range 3 {
			stops = append(stops, start(t, r.bus, r.settings()))
		}
		time.Sleep(time.Duration(1000+rand.IntN(400)) * time.Millisecond)
		for _, stop := range stops {
			stop()
		}
	}
	stop = start(t, r.bus, r.settings())
	result := done(t, r.bus, job.ID)
	stop()
	repeats := 0
	for id, n := range r.times(t) {
		switch {
		case strings.HasPrefix(id, "outside") && n != 1:
			t.Fatalf("%s, outside the window, arrived %d times", id, n)
		case strings.HasPrefix(id, "in") && n < 2:
			t.Fatalf("%s arrived %d times", id, n)
		case strings.HasPrefix(id, "in"):
			repeats += n - 2
		}
	}
	t.Logf("%+v, %d repeats of %d", result, repeats, len(ids))
	// The job's ledger, which counts them, went with the job.
	if result.Resent > bus.MaxUnconfirmed*broken {
		t.Errorf("%d resent for %d broken connections", result.Resent, broken)
	}
	if uint64(repeats) > result.Resent || result.Missing != 0 || result.Confirmed != 12_000 {
		t.Errorf("%d repeats, result %+v", repeats, result)
	}
}
