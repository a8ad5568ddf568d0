package sender_test

import (
	"fmt"
	"testing"
	"time"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
)

func TestReplayIsCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	alerts, _ := series("a", 2000, day)
	put(t, r.bus, alerts...)
	stop := start(t, r.bus, r.settings())
	defer stop()
	settled(t, r.bus, 2000)
	job := order(t, r.bus, output, whole(), 50)
	for {
		p, err := replay.ReadProgress(ctx, r.bus, &job.Job, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Settled > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	e, err := replay.Cancel(ctx, r.bus, job.ID)
	if err != nil || e.State != proto.JobCancelled || e.Result.Confirmed == 0 {
		t.Fatalf("%+v, %v", e.Job, err)
	}
	time.Sleep(3 * time.Second)
	frames := r.devo.Stats().Frames
	time.Sleep(2 * time.Second)
	if now := r.devo.Stats().Frames; now != frames || now >= 4000 {
		t.Errorf("%d frames, then %d", frames, now)
	}
	// Live alerts go on, and the next job runs.
	more, ids := series("b", 100, day.AddDate(2, 0, 0))
	put(t, r.bus, more...)
	settled(t, r.bus, 2100)
	next, err := replay.Start(ctx, r.bus, proto.Job{ID: "next", Kind: proto.JobReplay, Output: output, Stream: proto.StreamUnique}, replay.Selection{Sequences: proto.SequencesOf(2001, 2002)})
	if err != nil {
		t.Fatal(err)
	}
	if got := done(t, r.bus, next.ID); got.Confirmed != 2 {
		t.Errorf("%+v", got)
	}
	if got := r.times(t)[ids[0]]; got != 2 {
		t.Errorf("%s arrived %d times", ids[0], got)
	}
}

// TestReplayKeepsItsRateAndLetsLiveAlertsPass has three senders and a rate: no second brings more than it, and what
// comes meanwhile is delivered at once.
func TestReplayKeepsItsRateAndLetsLiveAlertsPass(t *testing.T) {
	t.Parallel()
	const rate = 50
	r := newRig(t)
	alerts, ids := series("a", 600, day)
	put(t, r.bus, alerts...)
	for range 3 {
		start(t, r.bus, r.settings())
	}
	settled(t, r.bus, 600)
	job := order(t, r.bus, output, whole(), rate)
	began := r.devo.Stats().Frames
	type sample struct {
		at     time.Time
		frames int64 // of the replay
	}
	var samples []sample
	live := 0
	for ctx := bustest.Context(t); ; {
		if ctx.Err() != nil {
			t.Fatal("the job does not end")
		}
		e, err := replay.Read(ctx, r.bus, job.ID)
		if err != nil {
			t.Fatal(err)
		}
		if e.State == proto.JobDone {
			break
		}
		samples = append(samples, sample{time.Now(), r.devo.Stats().Frames - began - int64(live)})
		// In the first part of the job only: there is ample time until its end.
		if replayed := samples[len(samples)-1].frames; replayed > 0 && replayed < 150 && len(samples)%10 == 0 {
			live++
			put(t, r.bus, sighting{id: fmt.Sprint("live", live), start: day.AddDate(2, 0, 0)})
			settled(t, r.bus, uint64(600+live))
			if p, err := replay.ReadProgress(ctx, r.bus, &job.Job, nil); err == nil && p.Settled == 600 {
				t.Errorf("live alert %d waited for the job", live)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	if live == 0 {
		t.Errorf("%d live alerts", live)
	}
	for i, a := range samples {
		for _, b := range samples[i:] {
			// What is on the way may arrive closer together than it left.
			if window := b.at.Sub(a.at); window >= 2*time.Second && float64(b.frames-a.frames) > rate*(window.Seconds()+1) {
				t.Fatalf("%d alerts in %v", b.frames-a.frames, window)
			}
		}
	}
	r.expect(t, ids, 2, 1)
}

// TestReplayOfWhatIsGone purges a part of the selection under the job: it ends and says how many are missing.
func TestReplayOfWhatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	alerts, _ := series("a", 100, day)
	put(t, r.bus, alerts...)
	stop := start(t, r.bus, r.settings())
	settled(t, r.bus, 100)
	stop()
	job := order(t, r.bus, output, whole(), 0)
	if err := r.bus.PurgeBelow(ctx, proto.StreamUnique, 41); err != nil {
		t.Fatal(err)
	}
	start(t, r.bus, r.settings())
	if got := done(t, r.bus, job.ID); got.Confirmed != 60 || got.Missing != 40 {
		t.Errorf("%+v", got)
	}
	all := proto.SequencesOf(41, 42)
	gone, err := replay.Start(ctx, r.bus, proto.Job{ID: "gone", Kind: proto.JobReplay, Output: output, Stream: proto.StreamUnique}, replay.Selection{Sequences: all})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.bus.PurgeBelow(ctx, proto.StreamUnique, 101); err != nil {
		t.Fatal(err)
	}
	if got := done(t, r.bus, gone.ID); got.Confirmed+got.Missing != 2 {
		t.Errorf("%+v", got)
	}
}

// TestDeadLettersAreSentAgain has letters of two outputs: only the named ones go, and only to their output.
func TestDeadLettersAreSentAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	letter := func(stage, output, id string, payload []byte) uint64 {
		t.Helper()
		if payload == nil {
			e := proto.Envelope{
				Row: fmt.Appendf(nil, `{"id":%q}`, id), Hash: proto.HashIdentity(id), HashVersion: 1, AlertID: id, EventTime: day, Source: source, Generation: 1,
				PullStart: day, FetchTime: day, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
			}
			payload, _ = e.Encode()
		}
		d := proto.DeadLetter{Stage: stage, Output: output, AlertID: id, Reason: "crashed", First: day, Last: day, Stream: proto.StreamUnique, Sequence: uint64(len(id)), Payload: payload}
		if err := r.bus.DeadLetter(ctx, d); err != nil {
			t.Fatal(err)
		}
		s, err := r.bus.JetStream().Stream(ctx, proto.StreamDead)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	a := letter(proto.StageSender, output, "x", nil)
	letter(proto.StageSender, output, "xx", nil)
	other := letter(proto.StageSender, "other", "xxx", nil)
	dedup := letter(proto.StageDedup, "", "xxxx", nil)
	b := letter(proto.StageSender, output, "xxxxx", nil)
	junk := letter(proto.StageSender, output, "xxxxxx", []byte("junk"))
	for name, bad := range map[string]uint64{"other output": other, "other stage": dedup, "no alert": junk, "not there": 99} {
		if id, err := replay.StartDead(ctx, r.bus, output, []uint64{a, bad}); err == nil {
			t.Errorf("%s: started %s", name, id)
		}
	}
	id, err := replay.StartDead(ctx, r.bus, output, []uint64{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := replay.StartDead(ctx, r.bus, output, []uint64{a, b}); err != nil || same != id {
		t.Errorf("a second job %s, %v", same, err)
	}
	start(t, r.bus, r.settings())
	if got := done(t, r.bus, id); (got != proto.JobResult{Confirmed: 2}) {
		t.Errorf("%+v", got)
	}
	next, err := replay.StartDead(ctx, r.bus, output, []uint64{a, b})
	if err != nil || next == id {
		t.Fatalf("%s again, %v", next, err)
	}
	done(t, r.bus, next)
	if got := r.times(t); len(got) != 2 || got["x"] != 2 || got["xxxxx"] != 2 {
		t.Errorf("%v", got)
	}
}
