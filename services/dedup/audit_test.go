package dedup_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/reconcile"
	"defenderiot/proto"
	"defenderiot/services/dedup"
)

const many = 40_500 // claims; one step of an audit looks at 20,000

// claimed stores claims that no alert belongs to.
func claimed(t *testing.T, b *bus.Bus, n int) {
	t.Helper()
	for i := 0; i < n; i += 1000 {
		var msgs []bus.Message
		for j := i; j < min(n, i+1000); j++ {
			key := proto.HashKey(source, 1, proto.HashIdentity(fmt.Sprint("old ", j)))
			msgs = append(msgs, bus.Message{Subject: proto.BucketSubject(proto.BucketHashes, key), Data: proto.Claim{RawSequence: 1, Silent: true}.Encode(), ExpectEmpty: true})
		}
		if err := b.PublishBatch(bustest.Context(t), proto.BucketStream(proto.BucketHashes), msgs); err != nil {
			t.Fatal(err)
		}
	}
}

// lose has two alerts passed on and takes the second one out of UNIQUE.
func lose(t *testing.T, b *bus.Bus, kept, lost string) {
	t.Helper()
	stop := start(t, b)
	raw(t, b, envelope(kept, 1))
	settled(t, b) // it comes to UNIQUE first: what is gone from the front may have been purged
	raw(t, b, envelope(lost, 1))
	settled(t, b)
	stop()
	if err := b.Purge(bustest.Context(t), proto.StreamUnique, proto.UniqueSubject(source, 1, proto.HashIdentity(lost))); err != nil {
		t.Fatal(err)
	}
}

func newKeeper(t *testing.T, b *bus.Bus) *dedup.Keeper {
	t.Helper()
	k, err := dedup.NewKeeper(b, bustest.Topology(), bustest.Logger(), noop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// seen is what the keeper has stored.
func seen(ctx context.Context, t *testing.T, b *bus.Bus) (*proto.Watch, *proto.Loss) {
	t.Helper()
	subject := proto.BucketSubject(proto.BucketCheckpoints, proto.WatchKey)
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketCheckpoints), []string{subject})
	if err != nil || len(found) == 0 {
		t.Fatalf("nothing is kept: %v", err)
	}
	w, err := proto.DecodeWatch(found[subject].Data)
	if err != nil {
		t.Fatal(err)
	}
	loss, _, err := dedup.ReadLoss(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	return w, loss
}

// TestAuditInSteps: more claims than one round looks at are looked at in several, by one keeper or by one that is
// started anew for each, until the alert that is nowhere is found and its claim released.
func TestAuditInSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of thousands of claims: run without -short")
	}
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("restarted ", restarted), func(t *testing.T) {
			b := bustest.New(t, bustest.Topology())
			ctx := bustest.Context(t)
			claimed(t, b, many)
			raw(t, b, envelope("kept", 1))
			stop := start(t, b)
			settled(t, b)
			stop()
			// Without a trace in the figures: a claim whose alert never came to UNIQUE.
			subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity("lost")))
			if err := b.PublishBatch(ctx, proto.BucketStream(proto.BucketHashes), []bus.Message{{Subject: subject, Data: proto.Claim{RawSequence: 1}.Encode()}}); err != nil {
				t.Fatal(err)
			}
			k := newKeeper(t, b)
			var audited, released uint64
			for round := 1; ; round++ {
				if err := k.Round(ctx); err != nil {
					t.Fatal(err)
				}
				w, loss := seen(ctx, t, b)
				switch {
				case round <= 2 && (loss != nil || w.Audited <= audited || w.Audited > many):
					t.Fatalf("after round %d: audited %d, loss %+v", round, w.Audited, loss)
				case round > 2 && round < 5 && (loss == nil || loss.State != proto.LossReleasing || loss.Released != 0 || loss.Next <= released):
					t.Fatalf("after round %d: loss %+v", round, loss)
				case round == 8:
					t.Fatalf("it does not end: audited %d, loss %+v", w.Audited, loss)
				}
				audited = w.Audited
				if loss != nil {
					released = loss.Next
				}
				if loss != nil && loss.State == proto.LossSettled {
					if loss.Released != 1 || loss.Gone != 1 || loss.Messages[proto.StreamUnique] != 1 {
						t.Errorf("%+v", loss)
					}
					break
				}
				if restarted {
					k = newKeeper(t, b)
				}
			}
		})
	}
}

// TestKeptInTrouble: what stops a loss from being brought back does not stop the keeper from storing what it saw, and
// the positions that have gone back do not go back again while another one cannot be read.
func TestKeptInTrouble(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	lose(t, b, "kept", "lost")
	floor := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := func(token string, data []byte) {
		t.Helper()
		m := bus.Message{Subject: proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix+token), Data: data}
		if err := b.PublishBatch(ctx, proto.BucketStream(proto.BucketCheckpoints), []bus.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	c := proto.Checkpoint{PersistenceVersion: proto.PersistenceVersion, Floor: floor, LastEventTime: floor.Add(time.Hour), Generation: 1}
	sound, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	record("a.sound", sound)
	record("a.broken", []byte("{"))
	revision := func() uint64 {
		t.Helper()
		subject := proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix+"a.sound")
		found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketCheckpoints), []string{subject})
		if err != nil {
			t.Fatal(err)
		}
		return found[subject].Sequence
	}
	before := revision()
	k := newKeeper(t, b)
	for range 3 {
		if err := k.Round(ctx); err == nil {
			t.Fatal("a record that cannot be read is no trouble")
		}
		if w, loss := seen(ctx, t, b); w.Streams[proto.StreamRaw].Last != 2 || loss == nil || loss.State != proto.LossReleasing || loss.Released != 1 {
			t.Fatalf("kept %+v, loss %+v", w, loss)
		}
		if at := revision(); before == 0 {
			t.Fatal("no record")
		} else if at != before {
			if before, err = at, k.Round(ctx); err == nil || revision() != at {
				t.Fatalf("the position goes back again and again: %v", err)
			}
		}
	}
	record("a.broken", sound)
	if err := k.Round(ctx); err != nil {
		t.Fatal(err)
	}
	if _, loss := seen(ctx, t, b); loss.State != proto.LossReading || len(loss.Positions) != 2 || !loss.Positions["a.sound"].Equal(floor.Add(time.Hour)) {
		t.Errorf("loss %+v", loss)
	}
}

// TestSilenced: a claim that was given up is not taken for lost; one whose alert is in UNIQUE stays as it is.
func TestSilenced(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	lose(t, b, "kept", "dropped")
	for _, want := range []int{1, 0} {
		if n, err := reconcile.Silence(ctx, b, proto.SequencesOf(1, 2)); err != nil || n != want {
			t.Errorf("%d marked, %v, want %d", n, err, want)
		}
	}
	if a, err := reconcile.Audit(ctx, b, 0, time.Time{}, true); err != nil || a.Lost != 0 || !a.Done {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestReleasingWaits: while a claim's alert is on its way in RAW, its claim is looked at again and nothing counts as
// read again; once dedup has passed it on, the loss goes on.
func TestReleasingWaits(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	lose(t, b, "kept", "lost")
	raw(t, b, envelope("on its way", 1))
	subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity("on its way")))
	if err := b.PublishBatch(ctx, proto.BucketStream(proto.BucketHashes), []bus.Message{{Subject: subject, Data: proto.Claim{RawSequence: 3}.Encode()}}); err != nil {
		t.Fatal(err)
	}
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketHashes), []string{subject})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, b)
	for range 3 {
		if err := k.Round(ctx); err != nil {
			t.Fatal(err)
		}
		if _, loss := seen(ctx, t, b); loss == nil || loss.State != proto.LossReleasing || loss.Next != found[subject].Sequence || loss.Released != 1 {
			t.Fatalf("loss %+v, want it to go on at the claim %d", loss, found[subject].Sequence)
		}
	}
	stop := start(t, b)
	defer stop()
	for {
		if err := k.Round(ctx); err != nil {
			t.Fatal(err)
		}
		if _, loss := seen(ctx, t, b); loss.State == proto.LossSettled {
			if loss.Released != 1 || loss.Gone != 1 {
				t.Errorf("loss %+v", loss)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
