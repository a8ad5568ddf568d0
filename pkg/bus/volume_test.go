package bus_test

import (
	"slices"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

func TestVolume(t *testing.T) {
	topology := bustest.Topology("devo_1")
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	if names := bus.Streams(); len(names) != 7 || !slices.Contains(names, proto.StreamDead) || !slices.Contains(names, proto.BucketStream(proto.BucketHashes)) {
		t.Errorf("streams: %v", names)
	}
	for _, name := range bus.Streams() {
		if _, err := b.Volume(ctx, name); err != nil {
			t.Error(err)
		}
	}
	begun := time.Now()
	var msgs []bus.Message
	for _, subject := range []string{"alerts.unique.a.b.c.1.x", "alerts.unique.a.b.c.1.y"} {
		msgs = append(msgs, bus.Message{Subject: subject, Data: make([]byte, 1000)})
	}
	if err := b.PublishBatch(ctx, proto.StreamUnique, msgs); err != nil {
		t.Fatal(err)
	}
	v, err := b.Volume(ctx, proto.StreamUnique)
	if err != nil || v.Messages != 2 || v.Bytes < 2000 || v.Limit != uint64(topology.UniqueBytes) || v.FirstSequence != 1 || v.LastSequence != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	if got, want := v.Fill(), float64(v.Bytes)/float64(topology.UniqueBytes); got != want || (bus.Volume{Bytes: 1}).Fill() != 0 {
		t.Errorf("fill %v, want %v", got, want)
	}
	if _, err := b.Volume(ctx, "NONE"); err == nil {
		t.Error("a stream that is not there has a volume")
	}
	at, found, err := b.StoredAt(ctx, proto.StreamUnique, 2)
	if err != nil || !found || at.Before(begun.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("stored at %v, %v, %v", at, found, err)
	}
	if _, found, err = b.StoredAt(ctx, proto.StreamUnique, 3); err != nil || found {
		t.Errorf("behind the end: %v, %v", found, err)
	}
	if err := b.PurgeBelow(ctx, proto.StreamUnique, 2); err != nil {
		t.Fatal(err)
	}
	if next, found, err := b.StoredAt(ctx, proto.StreamUnique, 1); err != nil || !found || !next.Equal(at) {
		t.Errorf("of one that is gone: %v, %v, %v, want %v", next, found, err, at)
	}
}
