package dedup_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
	"defenderiot/services/dedup"
)

// deadly is the trial of a dedup that some messages end.
func deadly(option byte, message []byte) {
	switch {
	case bytes.Contains(message, []byte("deadly")):
		os.Exit(3)
	case bytes.Contains(message, []byte("killed")): // as a machine without memory does
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	dedup.Try(option, message)
}

// again marks a message as one that was put into RAW again, which is tried.
func again(sequence uint64) nats.Header {
	return nats.Header{proto.HeaderRawSequence: {strconv.FormatUint(sequence, 10)}}
}

// row is a message as the fetcher publishes it.
func row(t *testing.T, id string, pull int64) bus.Message {
	t.Helper()
	e := envelope(id, 1)
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return bus.Message{Subject: proto.RawSubject(source), Data: data, MsgID: proto.RawMsgID(source, 1, pull, 0, 0, e.Hash)}
}

// lettersUntil waits for n of them.
func lettersUntil(t *testing.T, b *bus.Bus, n int) (all []*proto.DeadLetter) {
	t.Helper()
	for ctx := bustest.Context(t); len(all) < n && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		all = letters(t, b)
	}
	return all
}

func letters(t *testing.T, b *bus.Bus) (all []*proto.DeadLetter) {
	t.Helper()
	ctx := bustest.Context(t)
	stream, err := b.JetStream().Stream(ctx, proto.StreamDead)
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		letter, err := proto.DecodeDeadLetter(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, letter)
	}
	return all
}

// What was in hand when the bus died is tried, and only then: of the rows that are deadly one letter each, its
// neighbours pass, and no copy of a condemned row is read.
func TestCondemned(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	first, copied, other := row(t, "deadly", 1), row(t, "deadly", 2), row(t, "deadly too", 3)
	if err := b.PublishBatch(bustest.Context(t), proto.StreamRaw, []bus.Message{row(t, "before", 1), first, row(t, "between", 1), copied, other, row(t, "after", 1)}); err != nil {
		t.Fatal(err)
	}
	stop := startAfter(t, b, true)
	got := settled(t, b)
	stop()
	if len(got) != 3 || got["1/before"]+got["1/between"]+got["1/after"] != 3 {
		t.Errorf("UNIQUE holds %v", got)
	}
	all := letters(t, b)
	if len(all) != 2 {
		t.Fatalf("%d letters, want 2: %+v", len(all), all)
	}
	for i, want := range []uint64{2, 5} {
		if l := all[i]; l.Sequence != want || l.Claim != 0 || l.AlertID != "" || !strings.Contains(l.Reason, "two crashes") {
			t.Errorf("letter %+v, want sequence %d", l, want)
		}
	}
}

// A copy that comes for the first time in the same batch is not read either: it is no envelope, and reading it would
// make a letter of it.
func TestCopyOfACondemned(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	condemned, copied := row(t, "x", 1), row(t, "x", 2)
	condemned.Data, copied.Data = []byte("deadly"), []byte("deadly copy")
	condemned.Header = again(100)
	if err := b.PublishBatch(bustest.Context(t), proto.StreamRaw, []bus.Message{copied, row(t, "y", 1), condemned}); err != nil {
		t.Fatal(err)
	}
	stop := start(t, b)
	got := settled(t, b)
	all := letters(t, b)
	if len(all) != 1 || !strings.Contains(all[0].Reason, "two crashes") || len(got) != 1 {
		t.Errorf("letters %+v, UNIQUE %v", all, got)
	}
	// Later ones neither.
	copied.MsgID = proto.RawMsgID(source, 1, 3, 0, 0, proto.HashIdentity("x"))
	if err := b.PublishBatch(bustest.Context(t), proto.StreamRaw, []bus.Message{copied, row(t, "z", 3)}); err != nil {
		t.Fatal(err)
	}
	for ctx := bustest.Context(t); len(uniques(t, b)) < 2 && ctx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
	}
	settled(t, b)
	stop()
	if all := letters(t, b); len(all) != 1 {
		t.Errorf("letters %+v", all)
	}
}

// A condemned row whose claim was released takes it over, so it is in the dead letters, and once only.
func TestCondemnedWithAReleasedClaim(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	hashes := proto.BucketStream(proto.BucketHashes)
	subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity("deadly")))
	if err := b.PublishBatch(ctx, hashes, []bus.Message{{Subject: subject, Data: proto.Claim{RawSequence: 900, Released: true}.Encode()}}); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{row(t, "before", 1), row(t, "deadly", 1), row(t, "deadly", 2)}); err != nil {
		t.Fatal(err)
	}
	stop := startAfter(t, b, true)
	settled(t, b)
	stop()
	if all := letters(t, b); len(all) != 1 || all[0].Sequence != 2 {
		t.Errorf("letters %+v, want one of sequence 2", all)
	}
	found, err := b.Lookup(ctx, hashes, []string{subject})
	if claim, _ := proto.DecodeClaim(found[subject].Data); err != nil || claim != (proto.Claim{RawSequence: 2, Again: true}) {
		t.Errorf("claim %+v, %v", claim, err)
	}
}

// A message that was condemned, put into RAW again and condemned again keeps its claim, so that the third time it can
// arrive, once.
func TestCondemnedTwice(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	m := row(t, "deadly", 1)
	if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{row(t, "before", 1), m}); err != nil {
		t.Fatal(err)
	}
	stop := startAfter(t, b, true)
	var l *proto.DeadLetter
	for n := 1; ; n++ {
		all := lettersUntil(t, b, n)
		l = all[len(all)-1]
		if len(all) != n || l.Sequence != uint64(1+n) || l.Claimed() != 2 {
			t.Fatalf("round %d: %+v, of %d", n, l, len(all))
		}
		if n == 3 {
			break
		}
		m := bus.Message{Subject: m.Subject, Data: l.Payload, MsgID: "again/" + l.MsgID(), Header: again(l.Claimed())}
		if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	// After the upgrade it is sound; the other copies of it are duplicates.
	sound := row(t, "deadly", 2)
	sound.Data = bytes.ReplaceAll(l.Payload, []byte("deadly"), []byte("lively"))
	sound.MsgID, sound.Header = "again/"+l.MsgID(), again(l.Claimed())
	duplicate := sound
	duplicate.Header, duplicate.MsgID = nil, "pulled"
	if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{duplicate, sound}); err != nil {
		t.Fatal(err)
	}
	stop = start(t, b)
	defer stop()
	for len(uniques(t, b)) < 2 && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	if got := settled(t, b); got["1/lively"] != 1 || len(got) != 2 {
		t.Errorf("UNIQUE holds %v", got)
	}
}

// A message under which children are killed from outside is neither condemned nor read: it waits, and its neighbours
// do not.
func TestUnjudged(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	killed := row(t, "killed", 1)
	killed.Header = again(1)
	if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{row(t, "before", 1), killed, row(t, "after", 1)}); err != nil {
		t.Fatal(err)
	}
	stop := start(t, b)
	defer stop()
	waiting := func() (*jetstream.ConsumerInfo, error) {
		c, err := b.JetStream().Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
		if err != nil {
			return nil, err
		}
		return c.CachedInfo(), nil
	}
	for len(uniques(t, b)) < 2 && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	info, err := waiting()
	if err != nil || info.NumAckPending != 1 || info.AckFloor.Stream != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	if got, all := uniques(t, b), letters(t, b); len(got) != 2 || len(all) != 0 {
		t.Errorf("UNIQUE holds %v, letters %+v", got, all)
	}
}

// A storm of redeliveries is tried in batches.
func BenchmarkTrial(b *testing.B) {
	e := envelope("a", 1)
	e.Row = fmt.Appendf(nil, `{"id":"a","pad":%q}`, strings.Repeat("x", 1400))
	data, err := e.Encode()
	if err != nil {
		b.Fatal(err)
	}
	tried := trial.New(dedup.TrialWork, bustest.Logger())
	defer tried.Close()
	batch := slices.Repeat([][]byte{data}, 1000)
	for b.Loop() {
		tried.Try(b.Context(), 0, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/message")
}
