package reconcile_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/reconcile"
	"defenderiot/proto"
)

func TestMain(m *testing.M) { bustest.Leaks(m) }

var source = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

// claimed makes the claim of an alert by a sequence of RAW.
func claimed(t *testing.T, b *bus.Bus, id string, sequence uint64) {
	t.Helper()
	subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity(id)))
	if err := b.PublishBatch(bustest.Context(t), proto.BucketStream(proto.BucketHashes), []bus.Message{
		{Subject: subject, Data: proto.Claim{RawSequence: sequence}.Encode(), ExpectEmpty: true},
	}); err != nil {
		t.Fatal(err)
	}
}

// TestAuditFindsEachPlace: which alerts are nowhere is told by what the bus says of their messages, not by what is in
// them. In RAW: messages that nobody may decode, one under a sequence that another alert had before, one whose row
// cannot be told, and a dead letter that was put there again. In DEAD: letters of messages of both kinds.
func TestAuditFindsEachPlace(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	publish := func(id string, header nats.Header) {
		t.Helper()
		if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{{Subject: proto.RawSubject(source), Data: []byte("\xff"), MsgID: id, Header: header}}); err != nil {
			t.Fatal(err)
		}
	}
	publish(proto.RawMsgID(source, 1, 1, 0, 0, proto.HashIdentity("waits")), nil)
	publish(proto.RawMsgID(source, 1, 1, 0, 1, proto.HashIdentity("another")), nil)
	publish("of somebody else", nil)
	publish("again/dedup//RAW/90", nats.Header{proto.HeaderRawSequence: {strconv.Itoa(90)}})
	for _, letter := range []proto.DeadLetter{
		{Stage: proto.StageDedup, Stream: proto.StreamRaw, Sequence: 91, Reason: "x", Payload: []byte("\xff")},
		{Stage: proto.StageDedup, Stream: proto.StreamRaw, Sequence: 99, Claim: 92, Reason: "x", Payload: []byte("\xff")},
		{Stage: proto.StageSender, Output: "devo", Stream: proto.StreamUnique, Sequence: 93, Reason: "x", Payload: []byte("\xff")},
	} {
		if err := b.DeadLetter(ctx, letter); err != nil {
			t.Fatal(err)
		}
	}
	unique := proto.UniqueSubject(source, 1, proto.HashIdentity("stored"))
	if err := b.PublishBatch(ctx, proto.StreamUnique, []bus.Message{{Subject: unique, Data: []byte("x"), ExpectEmpty: true}}); err != nil {
		t.Fatal(err)
	}
	claimed(t, b, "waits", 1)
	claimed(t, b, "overwritten", 2) // lost
	claimed(t, b, "cannot be told", 3)
	claimed(t, b, "put there again", 90)
	claimed(t, b, "a letter", 91)
	claimed(t, b, "a letter of the second try", 92)
	claimed(t, b, "a letter of an output has that sequence", 93) // lost
	claimed(t, b, "stored", 94)
	claimed(t, b, "gone", 95) // lost
	a, err := reconcile.Audit(ctx, b, 0, time.Time{}, true)
	if err != nil || a.Released != 3 || a.Lost != 3 || a.Waiting != 1 || !a.Done {
		t.Errorf("%+v, %v, want 3 released, and the first one waiting", a, err)
	}
	_, hashes, err := reconcile.Unclaimed(ctx, b, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, id := range []string{"overwritten", "a letter of an output has that sequence", "gone"} {
		names[proto.HashIdentity(id)] = id
	}
	for _, h := range hashes {
		delete(names, h)
	}
	if len(names) > 0 {
		t.Errorf("not released: %v", names)
	}
}
