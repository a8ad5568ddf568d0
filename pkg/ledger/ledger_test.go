package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

const output = "devo us"

func TestMain(m *testing.M) {
	bustest.Leaks(m)
}

func subject(instance string) string {
	return proto.BucketSubject(proto.BucketLedgers, proto.LedgerKey(output, instance))
}

// stored reads a process's record; nil where there is none.
func stored(t testing.TB, b *bus.Bus, instance string) *proto.Ledger {
	t.Helper()
	found, err := b.Lookup(bustest.Context(t), proto.BucketStream(proto.BucketLedgers), []string{subject(instance)})
	if err != nil {
		t.Fatal(err)
	}
	s, ok := found[subject(instance)]
	if !ok {
		return nil
	}
	r, err := proto.DecodeLedger(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// age makes the record of a process look as if it had been silent for an hour.
func age(t testing.TB, b *bus.Bus, instance string) {
	t.Helper()
	r := stored(t, b, instance)
	if r == nil {
		return
	}
	r.Updated = time.Now().Add(-time.Hour)
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, instance, data)
}

func publish(t testing.TB, b *bus.Bus, instance string, data []byte) {
	t.Helper()
	if _, err := b.JetStream().Publish(bustest.Context(t), subject(instance), data); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, l *ledger.Ledger, seqs ...uint64) ledger.Verdict {
	t.Helper()
	v, err := l.Begin(bustest.Context(t), seqs)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func read(t testing.TB, b *bus.Bus) ledger.View {
	t.Helper()
	v, err := ledger.Read(bustest.Context(t), b, output)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAbsorbKeepsCountersAndRemovesRecords(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	gone, doubtful := ledger.Open(b, output, "gone"), ledger.Open(b, output, "doubtful")
	begin(t, gone, 1, 2, 3)
	gone.Count(proto.Counters{Rotations: 7, Unclean: 2})
	if err := errors.Join(gone.Confirm(ctx, []uint64{1, 2}), gone.Dead(ctx, []uint64{3})); err != nil {
		t.Fatal(err)
	}
	begin(t, doubtful, 4)
	before := read(t, b)
	want := proto.Counters{Confirmed: 2, Dead: 1, Rotations: 7, Unclean: 2}
	if before.Counters != want || before.Senders != 2 || before.Floor != 3 || before.Unconfirmed() != 1 {
		t.Fatalf("before: %+v", before)
	}
	next := ledger.Open(b, output, "next")
	if err := next.Touch(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if stored(t, b, "gone") == nil {
		t.Error("the record of a living process was taken over")
	}
	age(t, b, "gone")
	age(t, b, "doubtful")
	// Several try it, one succeeds, and again changes nothing.
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if err := ledger.Open(b, output, fmt.Sprint("next-", i)).Touch(ctx, 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for range 2 {
		if err := next.Touch(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if v := read(t, b); v.Counters != want || v.Senders != 5 || v.Floor != 3 || !v.Written.Contains(4) {
			t.Errorf("after: %+v", v)
		}
	}
	if r := stored(t, b, "gone"); r != nil {
		t.Errorf("the record of a process that is gone is still there: %+v", r)
	}
	if stored(t, b, "doubtful") == nil {
		t.Error("a record was removed although sequence 4 may have been written")
	}
	if v := begin(t, next, 3, 4, 5); !v.Confirmed.Contains(3) || v.Confirmed.Len() != 1 || !v.Resent.Contains(4) || v.Resent.Len() != 1 {
		t.Errorf("verdict %+v", v)
	}
}

// TestCountsSurviveACrash: what Begin counted is stored before anything is sent again.
func TestCountsSurviveACrash(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	begin(t, ledger.Open(b, output, "one"), 1, 2)
	begin(t, ledger.Open(b, output, "two"), 1, 2, 3)
	begin(t, ledger.Open(b, output, "three"), 3)
	if v := read(t, b); v.Counters.Resent != 3 || v.Unconfirmed() != 3 {
		t.Errorf("%+v", v)
	}
}

func TestSettledTwiceCountsOnce(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	l := ledger.Open(b, output, "one")
	begin(t, l, 1, 2, 4, 5)
	for range 2 {
		// 1 goes below the floor, 4 and 5 stay above it.
		if err := errors.Join(l.Confirm(ctx, []uint64{1, 4}), l.Dead(ctx, []uint64{5, 5})); err != nil {
			t.Fatal(err)
		}
	}
	if v := read(t, b); v.Counters != (proto.Counters{Confirmed: 2, Dead: 1}) || v.Floor != 1 {
		t.Errorf("%+v", v)
	}
}

func TestTouchLiftsTheFloor(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	l := ledger.Open(b, output, "one")
	begin(t, l, 10, 11, 12)
	if err := l.Confirm(ctx, []uint64{10, 11}); err != nil {
		t.Fatal(err)
	}
	// Sequences 1 to 9 exist no more; the consumer's floor says so.
	for _, c := range []struct{ ack, want uint64 }{{0, 0}, {11, 11}, {5, 11}} {
		if err := l.Touch(ctx, c.ack); err != nil {
			t.Fatal(err)
		}
		if v := read(t, b); v.Floor != c.want || v.Unconfirmed() != 1 || !v.Written.Contains(12) {
			t.Errorf("after Touch(%d): %+v", c.ack, v)
		}
	}
	if err := l.Confirm(ctx, []uint64{12}); err != nil {
		t.Fatal(err)
	}
	if v := read(t, b); v.Floor != 12 || v.Confirmed.Len() != 0 || v.Unconfirmed() != 0 {
		t.Errorf("%+v", v)
	}
}

func TestProofOfLivingProcesses(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	if err := ledger.Open(b, output, "one").SetProof(ctx, proto.ProofUnproved); err != nil {
		t.Fatal(err)
	}
	begin(t, ledger.Open(b, output, "two"), 1)
	if v := read(t, b); v.Proof != proto.ProofUnproved || v.Senders != 2 {
		t.Errorf("%+v", v)
	}
	age(t, b, "one")
	if v := read(t, b); v.Proof != proto.ProofHalfClose || v.Senders != 1 {
		t.Errorf("after one is gone: %+v", v)
	}
}

// TestLateWriteReplacesNothing: a write whose outcome stayed unknown reaches the server after newer ones.
func TestLateWriteReplacesNothing(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	sub, err := b.Conn().SubscribeSync(subject("one"))
	if err != nil {
		t.Fatal(err)
	}
	l := ledger.Open(b, output, "one")
	begin(t, l, 1, 2, 3)
	if err := l.Confirm(ctx, []uint64{1, 2}); err != nil {
		t.Fatal(err)
	}
	want := read(t, b)
	for i := range 2 {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		again := nats.NewMsg(m.Subject)
		again.Data, again.Header = m.Data, m.Header
		if _, err := b.JetStream().PublishMsg(ctx, again); err == nil {
			t.Errorf("write %d was stored a second time", i)
		}
	}
	if got := read(t, b); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestWriteThatDidArrive: an earlier write of the process arrived although it was told otherwise, so the
// record's revision is not the one it knows.
func TestWriteThatDidArrive(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	l := ledger.Open(b, output, "one")
	begin(t, l, 1, 2)
	r := stored(t, b, "one")
	r.Written.AddAll([]uint64{3})
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, "one", data)
	begin(t, l, 3, 4)
	if err := l.Confirm(ctx, []uint64{1, 3}); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, b, "one"); got.Floor != 1 || !slices.Equal(got.Confirmed.Ranges(), []proto.Range{{First: 3, Last: 3}}) || got.Written.Len() != 2 {
		t.Errorf("%+v", got)
	}
}

func TestUnreadableRecordsAreErrors(t *testing.T) {
	newer := []byte{0x82, 0xa1, 'v', 2, 0xa2, 'w', 'r', 0xa1, '?'}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"damaged": {[]byte("damaged"), proto.ErrMalformed}, "empty": {nil, proto.ErrMalformed}, "newer": {newer, proto.ErrNewerMajor},
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t, bustest.Topology(output))
			ctx := bustest.Context(t)
			l := ledger.Open(b, output, "one")
			begin(t, l, 1)
			publish(t, b, "other", c.data)
			_, readErr := ledger.Read(ctx, b, output)
			_, beginErr := l.Begin(ctx, []uint64{2})
			for what, err := range map[string]error{"Read": readErr, "Begin": beginErr, "Touch": l.Touch(ctx, 0)} {
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), proto.LedgerKey(output, "other")) {
					t.Errorf("%s: %v", what, err)
				}
			}
			// What is confirmed can be stored all the same: it needs no other record.
			if err := l.Confirm(ctx, []uint64{1}); err != nil {
				t.Errorf("Confirm: %v", err)
			}
		})
	}
}

func TestOutputsAreApart(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output, "devo"))
	begin(t, ledger.Open(b, "devo", "one"), 1, 2)
	if v := begin(t, ledger.Open(b, output, "one"), 1, 2); v.Resent.Len() != 0 || v.Confirmed.Len() != 0 {
		t.Errorf("%+v", v)
	}
}

func TestCancelledContext(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx, cancel := context.WithCancel(bustest.Context(t))
	l := ledger.Open(b, output, "one")
	begin(t, l, 1)
	cancel()
	if v, err := l.Begin(ctx, []uint64{2}); !errors.Is(err, context.Canceled) || v.Confirmed.Len()+v.Resent.Len() != 0 {
		t.Errorf("Begin: %+v, %v", v, err)
	}
	if err := l.Confirm(ctx, []uint64{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("Confirm: %v", err)
	}
	// It goes on once the bus answers again; what could not be stored then is stored now.
	if v := begin(t, l, 1, 3); !v.Confirmed.Contains(1) || v.Resent.Len() != 0 {
		t.Errorf("%+v", v)
	}
	if v := begin(t, ledger.Open(b, output, "two"), 1, 3); !v.Confirmed.Contains(1) || !v.Resent.Contains(3) {
		t.Errorf("%+v", v)
	}
}

// TestConcurrentUse: several connections of a process share one Ledger and its writes.
func TestConcurrentUse(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	l := ledger.Open(b, output, "one")
	const lanes, batches, size = 6, 12, 10
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			for i := range batches {
				var seqs []uint64
				for k := range size {
					seqs = append(seqs, uint64(1+(i*size+k)*lanes+lane))
				}
				v, err := l.Begin(ctx, seqs)
				if err != nil || v.Confirmed.Len()+v.Resent.Len() != 0 {
					t.Errorf("lane %d: %+v, %v", lane, v, err)
					return
				}
				l.Count(proto.Counters{Rotations: 1})
				if err := l.Confirm(ctx, seqs); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := l.Touch(ctx, 0); err != nil {
		t.Fatal(err)
	}
	v := read(t, b)
	want := proto.Counters{Confirmed: lanes * batches * size, Rotations: lanes * batches}
	if v.Counters != want || v.Floor != lanes*batches*size || v.Unconfirmed() != 0 || v.Confirmed.Len() != 0 {
		t.Errorf("%+v", v)
	}
}

// TestPausedForTooLong has a process sleep until another one has taken its record for that of a dead one:
// it goes on, nothing it wrote is forgotten, and no count is lost or taken twice.
func TestPausedForTooLong(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	ctx := bustest.Context(t)
	sleeper, other := ledger.Open(b, output, "sleeper"), ledger.Open(b, output, "other")
	begin(t, sleeper, 1, 2)
	if err := sleeper.Confirm(ctx, []uint64{1, 2}); err != nil {
		t.Fatal(err)
	}
	age(t, b, "sleeper")
	if err := other.Touch(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if stored(t, b, "sleeper") != nil {
		t.Fatal("the record was not taken over")
	}
	begin(t, sleeper, 3, 4)
	if err := sleeper.Confirm(ctx, []uint64{3}); err != nil {
		t.Fatal(err)
	}
	v := read(t, b)
	if v.Counters.Confirmed != 3 {
		t.Errorf("%d confirmed, want 3", v.Counters.Confirmed)
	}
	if verdict := begin(t, other, 3, 4); !verdict.Confirmed.Contains(3) || !verdict.Resent.Contains(4) {
		t.Errorf("verdict %+v", verdict)
	}
}
