package replay

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

func TestMain(m *testing.M) {
	bustest.Leaks(m)
}

func job(id string) proto.Job {
	return proto.Job{ID: id, Kind: proto.JobReplay, Output: "devo_1", Stream: proto.StreamUnique}
}

func selection(seqs ...uint64) Selection { return Selection{Sequences: proto.SequencesOf(seqs...)} }

func sequencesOf(t *rapid.T, label string) proto.Sequences {
	return proto.SequencesOf(rapid.SliceOfN(rapid.Uint64Range(1, 60), 0, 40).Draw(t, label)...)
}

// TestSettledCounts compares the walk over ranges with asking for each sequence.
func TestSettledCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sequencesOf(t, "selection")
		v := ledger.View{Floor: rapid.Uint64Range(0, 60).Draw(t, "floor"), Confirmed: sequencesOf(t, "confirmed")}
		var want uint64
		for q := uint64(1); q <= 60; q++ {
			if s.Contains(q) && (q <= v.Floor || v.Confirmed.Contains(q)) {
				want++
			}
		}
		if got := settled(&s, &v); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	})
}

func TestOneOfManyCommandsStarts(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo_1"))
	ctx := bustest.Context(t)
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		group.Go(func() { _, errs[i] = Start(ctx, b, job("a"), selection(1, 2, uint64(10+i))) })
	}
	group.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil && winner >= 0 {
			t.Errorf("commands %d and %d have both started it", winner, i)
		} else if err == nil {
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal(errs)
	}
	e, err := Read(ctx, b, "a")
	if err != nil || e.State != proto.JobRunning || e.Last != uint64(10+winner) {
		t.Fatalf("%+v, %v", e, err)
	}
	s, err := LoadSelection(ctx, b, &e.Job)
	if got, want := fmt.Sprint(s.Ranges()), fmt.Sprintf("[{1 2} {%d %d}]", 10+winner, 10+winner); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// TestInterruptedPreparation: what a command that died has left is taken over after a minute and not before, and the
// one that only slept then fails.
func TestInterruptedPreparation(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo_1"))
	ctx := bustest.Context(t)
	left := job("a")
	left.Version, left.State, left.Created, left.Owner = 1, proto.JobPreparing, time.Now(), "dead"
	slept := Entry{Job: left}
	if err := store(ctx, b, &slept); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(ctx, b, job("a"), selection(1)); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("started beside a command that prepares: %v", err)
	}
	slept.Created = time.Now().Add(-2 * preparation)
	if err := store(ctx, b, &slept); err != nil {
		t.Fatal(err)
	}
	e, err := Start(ctx, b, job("a"), selection(1))
	if err != nil || e.State != proto.JobRunning {
		t.Fatalf("%+v, %v", e, err)
	}
	slept.State = proto.JobRunning
	if err := store(ctx, b, &slept); !errors.Is(err, errMoved) {
		t.Errorf("the command that slept: %v", err)
	}
	if _, err := Start(ctx, b, job("b"), Selection{}); err == nil {
		t.Error("a job without anything to send")
	}
}

// remains is what there is of a job besides its record.
func remains(t *testing.T, b *bus.Bus, id string) (out []string) {
	t.Helper()
	ctx := bustest.Context(t)
	if _, err := b.JetStream().Consumer(ctx, proto.StreamUnique, proto.JobConsumer(id)); err == nil {
		out = append(out, "consumer")
	}
	for what, subject := range map[string][2]string{
		"ledger":    {proto.BucketLedgers, proto.Token(proto.JobLedger(id)) + ".*"},
		"selection": {proto.BucketJobs, "selection." + id + ".*"},
	} {
		found, err := b.Lookup(ctx, proto.BucketStream(subject[0]), []string{proto.BucketSubject(subject[0], subject[1])})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			out = append(out, what)
		}
	}
	return out
}

func TestSweepRemovesWhatEndedJobsLeave(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo_1"))
	ctx := bustest.Context(t)
	end := func(id string, ago time.Duration) {
		t.Helper()
		e, err := Cancel(ctx, b, id)
		if err != nil {
			t.Fatal(err)
		}
		e.Ended = time.Now().Add(-ago)
		if err := store(ctx, b, &e); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"runs", "just-1", "ended", "old"} {
		if _, err := Start(ctx, b, job(id), selection(1, 3)); err != nil {
			t.Fatal(err)
		}
	}
	end("just-1", time.Second)
	end("ended", time.Hour)
	end("old", 31*24*time.Hour)
	for range 2 { // the second time for the records of old jobs
		if err := Sweep(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]int{"runs": 3, "just-1": 3, "ended": 0, "old": 0} {
		if got := remains(t, b, id); len(got) != want {
			t.Errorf("%s: %v", id, got)
		}
	}
	jobs, err := Jobs(ctx, b)
	if err != nil || len(jobs) != 3 {
		t.Errorf("%+v, %v", jobs, err)
	}
	// What it was is still known.
	e, err := Read(ctx, b, "ended")
	if err != nil || !e.Swept || e.State != proto.JobCancelled {
		t.Errorf("%+v, %v", e, err)
	}
	if p, err := ReadProgress(ctx, b, &e.Job, nil); err != nil || p.Settled != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := Cancel(ctx, b, "nobody"); !errors.Is(err, ErrNoJob) {
		t.Error(err)
	}
}

func TestUnreadableJobsAreNamedAndTheOthersWork(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo_1"))
	ctx := bustest.Context(t)
	if _, err := Start(ctx, b, job("a"), selection(1)); err != nil {
		t.Fatal(err)
	}
	for id, data := range map[string]string{"newer": `{"version":2,"id":"newer"}`, "cut": `{"version":1`, "wild": `{"version":1,"id":"*","output":"o","stream":"s","state":"running"}`} {
		if _, err := b.JetStream().Publish(ctx, proto.BucketSubject(proto.BucketJobs, proto.JobKey(id)), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := Jobs(ctx, b)
	if len(jobs) != 1 || !errors.Is(err, proto.ErrNewerMajor) || !errors.Is(err, proto.ErrMalformed) || !strings.Contains(err.Error(), "job.newer") {
		t.Errorf("%+v, %v", jobs, err)
	}
	if err := b.Purge(ctx, proto.BucketStream(proto.BucketJobs), proto.BucketSubject(proto.BucketJobs, proto.JobSelectionKey("a", 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSelection(ctx, b, &jobs[0].Job); err == nil {
		t.Error("a selection without its only part")
	}
}

func TestRunsOfAJob(t *testing.T) {
	base := Base("replay", "o", "a", "b")
	for _, other := range []string{Base("dead", "o", "a", "b"), Base("replay", "p", "a", "b"), Base("replay", "o", "ab"), Base("replay", "o", "a", "b", "")} {
		if other == base {
			t.Errorf("%s twice", base)
		}
	}
	var entries []Entry
	for _, id := range []string{RunID(base, 1), "0123456789-7", RunID(base, 10), RunID(base, 9)} {
		entries = append(entries, Entry{Job: proto.Job{ID: id}})
	}
	if e, n := Latest(entries, base); n != 10 || e.ID != base+"-10" {
		t.Errorf("%+v, %d", e, n)
	}
	if e, n := Latest(entries, "ffffffffff"); e != nil || n != 0 {
		t.Errorf("%+v, %d", e, n)
	}
}

func TestHolds(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		job  proto.Job
		want bool
	}{
		"running":   {proto.Job{State: proto.JobRunning, Stream: proto.StreamUnique, Created: now.Add(-Hold + time.Hour)}, true},
		"preparing": {proto.Job{State: proto.JobPreparing, Stream: proto.StreamUnique, Created: now}, true},
		"too old":   {proto.Job{State: proto.JobRunning, Stream: proto.StreamUnique, Created: now.Add(-Hold)}, false},
		"letters":   {proto.Job{State: proto.JobRunning, Stream: proto.StreamDead, Created: now}, false},
		"done":      {proto.Job{State: proto.JobDone, Stream: proto.StreamUnique, Created: now}, false},
		"cancelled": {proto.Job{State: proto.JobCancelled, Stream: proto.StreamUnique, Created: now}, false},
	} {
		if got := Holds(&tt.job, now); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
