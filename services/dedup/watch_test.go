package dedup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// waiting is a bus with messages in RAW that nobody takes, 1 MiB each, in blocks that no server has read since its start.
func waiting(t *testing.T, n int) (b *bus.Bus, blocks []string) {
	t.Helper()
	dir := t.TempDir()
	server := bustest.Server(t, dir)
	b = bustest.Connect(t, server)
	ctx := bustest.Context(t)
	if _, err := b.Provision(ctx, bustest.Topology(), false); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{{Subject: "alerts.raw.a.b.c", Data: make([]byte, 1<<20), MsgID: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.Close(ctx), server.Shutdown(context.Background())); err != nil {
		t.Fatal(err)
	}
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", bus.Account, "streams", proto.StreamRaw, "msgs", "*.blk"))
	if err != nil || len(blocks) < 3 {
		t.Fatalf("blocks %v, %v", blocks, err)
	}
	slices.Sort(blocks)
	return bustest.Connect(t, bustest.Server(t, dir)), blocks
}

// block puts a folder in the place of a block, which can be opened and not read, as with a disk that answers with
// errors; it returns how to take it away again.
func block(t *testing.T, path string) (free func()) {
	t.Helper()
	if err := errors.Join(os.Rename(path, path+".away"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
			t.Fatal(err)
		}
	}
}

func keeper(t *testing.T, b *bus.Bus) *Keeper {
	t.Helper()
	k, err := NewKeeper(b, bustest.Topology(), bustest.Logger(), noop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rounds are n of them; it returns the last loss, and RAW's holes as they are stored.
func rounds(t *testing.T, k *Keeper, n int) (loss *proto.Loss, holes []proto.Range) {
	t.Helper()
	ctx := bustest.Context(t)
	for range n {
		if err := k.round(ctx); err != nil {
			t.Fatal(err)
		}
	}
	loss, _, err := ReadLoss(ctx, k.bus)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.watch.load(ctx); err != nil {
		t.Fatal(err)
	}
	return loss, k.watch.seen.Streams[proto.StreamRaw].Holes
}

// floor is up to where RAW counts as settled.
func floor(t *testing.T, b *bus.Bus) uint64 {
	t.Helper()
	c, err := b.Consumer(bustest.Context(t), proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().AckFloor.Stream
}

// TestPassingTrouble: what cannot be read for one round, and then can, is no loss, and is not given up.
func TestPassingTrouble(t *testing.T) {
	b, blocks := waiting(t, 20)
	k := keeper(t, b)
	free := block(t, blocks[0])
	if loss, holes := rounds(t, k, 1); loss != nil || len(holes) > 0 {
		t.Fatalf("after one round: %+v, holes %v", loss, holes)
	}
	if k.watch.scrubs[proto.StreamRaw].doubts.Len() == 0 {
		t.Fatal("the block can be read")
	}
	free()
	loss, holes := rounds(t, k, 3)
	if at := floor(t, b); loss != nil || len(holes) > 0 || at > 0 {
		t.Errorf("%+v, holes %v, RAW is settled up to %d; nothing is lost", loss, holes, at)
	}
}

// TestDamagedBlock: a block that cannot be read counts, and none of those behind it. When it can be read again it is
// forgotten.
func TestDamagedBlock(t *testing.T) {
	b, blocks := waiting(t, 20)
	k := keeper(t, b)
	free := block(t, blocks[0])
	loss, holes := rounds(t, k, 2)
	if loss == nil || len(holes) != 1 || holes[0].First != 1 || holes[0].Last >= 15 || loss.Messages[proto.StreamRaw] != holes[0].Last {
		t.Fatalf("%+v, holes %v, want the first block of %d", loss, holes, len(blocks))
	}
	last := holes[0].Last
	ctx := bustest.Context(t)
	if _, err := b.Get(ctx, proto.StreamRaw, last+1); err != nil {
		t.Errorf("behind the block: %v", err)
	}
	free()
	if err := k.watch.giveUp(ctx, proto.StreamRaw, 0, []string{proto.ConsumerDedup}); err != nil {
		t.Fatal(err)
	}
	if loss, holes = rounds(t, k, 2); len(holes) > 0 || loss.Messages[proto.StreamRaw] != last {
		t.Errorf("%+v, holes %v, want none that can be read", loss, holes)
	}
}

// TestFrozenKeeper: a keeper that stood still between its figures and its look at them compares them with what had been
// seen before, not with what another keeper has seen since.
func TestFrozenKeeper(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	publish := func(n int) {
		t.Helper()
		for i := range n {
			if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{{Subject: "alerts.raw.a.b.c", Data: []byte("x"), MsgID: fmt.Sprint(time.Now(), i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	frozen, other := keeper(t, b), keeper(t, b)
	publish(3)
	rounds(t, frozen, 1)
	volumes, connection, _, err := frozen.volumes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	publish(5)
	rounds(t, other, 1)
	if err := frozen.compare(ctx, volumes, connection); err != nil {
		t.Fatal(err)
	}
	if loss, _ := rounds(t, frozen, 1); loss != nil {
		t.Errorf("%+v, want no loss", loss)
	}
}

// TestCopies: on a bus with copies a loss in the leader's figures is reported when it is there a round later, too, and
// nothing is released, given up or read again for it.
func TestCopies(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	k := keeper(t, b)
	look := func(last uint64) {
		t.Helper()
		if err := k.watch.load(ctx); err != nil {
			t.Fatal(err)
		}
		volumes := map[string]bus.Volume{}
		for _, name := range bus.Streams() {
			volumes[name] = bus.Volume{Replicas: 3, LastSequence: 0, FirstSequence: 1}
		}
		volumes[proto.StreamUnique] = bus.Volume{Replicas: 3, Messages: last, FirstSequence: 1, LastSequence: last}
		if err := k.compare(ctx, volumes, b.Connections()); err != nil {
			t.Fatal(err)
		}
	}
	reported := func(want uint64) *proto.Loss {
		t.Helper()
		loss, _, err := ReadLoss(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		got := uint64(0)
		if loss != nil {
			got = loss.Messages[proto.StreamUnique]
		}
		if got != want {
			t.Errorf("%d are reported as lost, want %d", got, want)
		}
		return loss
	}
	look(10)
	look(7) // a new leader that lags behind
	look(12)
	reported(0)
	look(9)
	reported(0)
	look(9)
	if loss := reported(3); loss == nil || loss.State != proto.LossSettled || loss.Released > 0 || loss.Positions != nil || !ShowsLoss(loss, time.Now()) {
		t.Errorf("%+v, want it shown and nothing done", loss)
	}
	look(9)
	reported(3)
	if len(k.watch.scrubs) > 0 {
		t.Error("read through")
	}
}

// TestUniqueKeepsItsLast: however long the retention is over, the last message of UNIQUE stays, which says since when its
// alerts are there.
func TestUniqueKeepsItsLast(t *testing.T) {
	topology := bustest.Topology()
	topology.UniqueRetention = time.Nanosecond
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	for i := range 5 {
		if err := b.PublishBatch(ctx, proto.StreamUnique, []bus.Message{{Subject: fmt.Sprint("alerts.unique.a.b.c.1.", i), Data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	k, err := NewKeeper(b, topology, bustest.Logger(), noop.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	rounds(t, k, 2)
	v, err := b.Volume(ctx, proto.StreamUnique)
	if err != nil {
		t.Fatal(err)
	}
	if since := k.watch.seen.UniqueSince; v.Messages != 1 || v.FirstSequence != 5 || since.Before(v.FirstTime) {
		t.Errorf("%+v, since %v", v, since)
	}
}
