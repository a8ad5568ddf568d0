package dedup

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
)

// TestKeeperLeavesWhatAJobStillNeeds: of a UNIQUE that is old and confirmed everywhere, what a running job has not
// settled stays; what it has goes, and after its end everything but the last one.
func TestKeeperLeavesWhatAJobStillNeeds(t *testing.T) {
	topology := bustest.Topology("devo_1")
	topology.UniqueRetention = time.Nanosecond
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	var msgs []bus.Message
	var all []uint64
	for i := range uint64(20) {
		msgs = append(msgs, bus.Message{Subject: fmt.Sprint("alerts.unique.a.b.c.1.", i), Data: []byte("x")})
		all = append(all, i+1)
	}
	if err := b.PublishBatch(ctx, proto.StreamUnique, msgs); err != nil {
		t.Fatal(err)
	}
	confirm := func(l *ledger.Ledger, seqs []uint64) {
		t.Helper()
		if _, err := l.Begin(ctx, seqs); err != nil {
			t.Fatal(err)
		}
		if err := l.Confirm(ctx, seqs); err != nil {
			t.Fatal(err)
		}
	}
	k, err := NewKeeper(b, topology, bustest.Logger(), noop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	first := func(want uint64, by string) {
		t.Helper()
		if _, slowest, err := k.settled(ctx); err != nil || slowest != by {
			t.Errorf("behind: %s, %v, want %s", slowest, err, by)
		}
		if err := k.unique(ctx); err != nil {
			t.Fatal(err)
		}
		s, err := b.JetStream().Stream(ctx, proto.StreamUnique)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().State.FirstSeq; got != want {
			t.Errorf("UNIQUE begins at %d, want %d", got, want)
		}
	}
	job := proto.Job{ID: "a", Kind: proto.JobReplay, Output: "devo_1", Stream: proto.StreamUnique}
	if _, err := replay.Start(ctx, b, job, replay.Selection{Sequences: proto.SequencesOf(5, 9, 15)}); err != nil {
		t.Fatal(err)
	}
	confirm(ledger.Open(b, "devo_1", "s"), all)
	const held = `replay job a to output "devo_1"`
	first(5, held)
	l := ledger.Open(b, proto.JobLedger("a"), "s")
	confirm(l, []uint64{5})
	l.Skip([]uint64{7, 8, 6})
	confirm(l, []uint64{9})
	first(10, held)
	if v, err := ledger.Read(ctx, b, proto.JobLedger("a")); err != nil || v.Counters.Confirmed != 2 || v.Floor != 9 {
		t.Errorf("%+v, %v", v, err)
	}
	// A record that cannot be read may hold, so nothing is purged.
	newer := proto.BucketSubject(proto.BucketJobs, proto.JobKey("newer"))
	if _, err := b.JetStream().Publish(ctx, newer, []byte(`{"version":9}`), jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
		t.Fatal(err)
	}
	if err := k.unique(ctx); err == nil {
		t.Error("purged beside a job of a newer version")
	}
	if err := b.Purge(ctx, proto.BucketStream(proto.BucketJobs), newer); err != nil {
		t.Fatal(err)
	}
	if _, err := replay.Cancel(ctx, b, "a"); err != nil {
		t.Fatal(err)
	}
	first(20, `output "devo_1"`) // the last one stays
}
