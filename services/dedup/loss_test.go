package dedup_test

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/reconcile"
	"defenderiot/proto"
	"defenderiot/services/dedup"
)

// TestReleasedClaimIsTakenOver: a claim whose alert is in UNIQUE or on its way is left alone; one whose alert is nowhere
// is released, and the next sighting of the alert is passed on once more, marked, and once only.
func TestReleasedClaimIsTakenOver(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	raw(t, b, envelope("kept", 1), envelope("lost", 1))
	stop := start(t, b)
	settled(t, b)
	stop()
	lost := proto.UniqueSubject(source, 1, proto.HashIdentity("lost"))
	if err := b.Purge(ctx, proto.StreamUnique, lost); err != nil {
		t.Fatal(err)
	}
	audit := func(want int) {
		t.Helper()
		a, err := reconcile.Audit(ctx, b, 0, time.Time{}, true)
		if err != nil || a.Released != want || a.Waiting != 0 || !a.Done {
			t.Errorf("%+v, %v, want %d released", a, err, want)
		}
	}
	audit(1)
	audit(0)
	if n, hashes, err := reconcile.Unclaimed(ctx, b, 0, 10); err != nil || n != 1 || hashes[0] != proto.HashIdentity("lost") {
		t.Errorf("not taken over: %d %v, %v", n, hashes, err)
	}
	time.Sleep(3 * time.Second) // UNIQUE's window of message ids, which forgets with a server what the server has lost
	raw(t, b, envelope("lost", 1), envelope("kept", 1), envelope("lost", 1))
	stop = start(t, b)
	defer stop()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		found, err := b.Lookup(ctx, proto.StreamUnique, []string{lost})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lost alert does not come back")
		}
	}
	stream, err := b.Stream(ctx, proto.StreamUnique)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(ctx, lost)
	if err != nil || len(m.Header[proto.HeaderAgain]) == 0 {
		t.Errorf("the alert that came back is not marked: %v, %v", m, err)
	}
	if n, _, err := reconcile.Unclaimed(ctx, b, 0, 10); err != nil || n != 0 {
		t.Errorf("%d are not taken over, %v", n, err)
	}
	audit(0)
}

// TestKeeperNoticesTheClaims: what a keeper finds lost at its start is stored, and goes on to its end.
func TestKeeperNoticesTheClaims(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	stop := start(t, b)
	raw(t, b, envelope("kept", 1))
	settled(t, b) // it comes to UNIQUE first: what is gone from the front may have been purged
	raw(t, b, envelope("lost", 1), envelope("also kept", 1))
	settled(t, b)
	stop()
	if err := b.Purge(ctx, proto.StreamUnique, proto.UniqueSubject(source, 1, proto.HashIdentity("lost"))); err != nil {
		t.Fatal(err)
	}
	k, err := dedup.NewKeeper(b, bustest.Topology(), bustest.Logger(), noop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := k.Round(ctx); err != nil {
			t.Fatal(err)
		}
	}
	loss, _, err := dedup.ReadLoss(ctx, b)
	if err != nil || loss == nil || loss.State != proto.LossSettled || loss.Released != 1 || loss.Gone != 1 || len(loss.Hashes) != 1 {
		t.Errorf("%+v, %v, want one alert that did not come back", loss, err)
	}
}
