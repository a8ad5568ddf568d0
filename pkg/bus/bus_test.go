package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/proto"
)

func TestMain(m *testing.M) {
	bustest.Leaks(m)
}

func messages(n int, subject string) []bus.Message {
	out := make([]bus.Message, n)
	for i := range out {
		out[i] = bus.Message{Subject: fmt.Sprintf("alerts.unique.a.b.c.1.%s%d", subject, i), Data: []byte("x"), ExpectEmpty: true, MsgID: fmt.Sprint(subject, i)}
	}
	return out
}

func count(t *testing.T, b *bus.Bus, stream string) uint64 {
	t.Helper()
	s, err := b.JetStream().Stream(bustest.Context(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestPublishBatchAgainChangesNothing(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	ctx := bustest.Context(t)
	for name, n := range map[string]int{"one": 1, "few": 3, "batch": 200, "more-than-one-batch": 1500} {
		t.Run(name, func(t *testing.T) {
			before := count(t, b, proto.StreamUnique)
			for range 3 {
				if err := b.PublishBatch(ctx, proto.StreamUnique, messages(n, name)); err != nil {
					t.Fatal(err)
				}
			}
			if got := count(t, b, proto.StreamUnique) - before; got != uint64(n) {
				t.Errorf("%d messages stored for %d published three times", got, n)
			}
		})
	}
}

// TestDeadLetterIsThereOnce: not only within the window of duplicate ids.
func TestDeadLetterIsThereOnce(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	ctx := bustest.Context(t)
	letter := proto.DeadLetter{Stage: proto.StageDedup, Reason: "junk", Attempts: 1, Stream: proto.StreamRaw, Sequence: 7, Payload: []byte("x")}
	other := letter
	other.Sequence = 8
	for _, d := range []proto.DeadLetter{letter, letter, other} {
		if err := b.DeadLetter(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	again := bus.Message{Subject: letter.Subject(), Data: []byte("later"), ExpectEmpty: true}
	if err := b.TryBatch(ctx, proto.StreamDead, []bus.Message{again}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("under another id the letter is stored again: %v", err)
	}
	if n := count(t, b, proto.StreamDead); n != 2 {
		t.Errorf("%d letters, want 2", n)
	}
	// One that was tried again and fails again at once is a letter again.
	if err := errors.Join(b.RemoveDeadLetter(ctx, 1), b.DeadLetter(ctx, letter)); err != nil {
		t.Fatal(err)
	}
	if n := count(t, b, proto.StreamDead); n != 2 {
		t.Errorf("%d letters after one was removed and written again, want 2", n)
	}
}

func TestPublishBatchPartlyStored(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	ctx := bustest.Context(t)
	all := messages(100, "p")
	if err := b.PublishBatch(ctx, proto.StreamUnique, all[40:60]); err != nil {
		t.Fatal(err)
	}
	if err := b.TryBatch(ctx, proto.StreamUnique, all); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("TryBatch over stored subjects: %v", err)
	}
	if got := count(t, b, proto.StreamUnique); got != 20 {
		t.Errorf("a refused batch left %d messages", got)
	}
	if err := b.PublishBatch(ctx, proto.StreamUnique, all); err != nil {
		t.Fatal(err)
	}
	if got := count(t, b, proto.StreamUnique); got != 100 {
		t.Errorf("%d messages", got)
	}
}

func TestPublishBatchMsgIDOnly(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	page := make([]bus.Message, 50)
	for i := range page {
		page[i] = bus.Message{Subject: "alerts.raw.a.b.c", Data: []byte("row"), MsgID: fmt.Sprint("page/", i)}
	}
	for range 2 {
		if err := b.PublishBatch(ctx, proto.StreamRaw, page); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(t, b, proto.StreamRaw); got != 50 {
		t.Errorf("%d messages for one page published twice", got)
	}
}

func TestFullStreamIsBackpressure(t *testing.T) {
	topology := bustest.Topology()
	topology.RawBytes = 100 << 10
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	var err error
	stored := 0
	for i := 0; i < 100 && err == nil; i++ {
		err = b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{{Subject: "alerts.raw.a.b.c", Data: make([]byte, 4<<10), MsgID: fmt.Sprint(i)}})
		if err == nil {
			stored++
		}
	}
	if !errors.Is(err, bus.ErrFull) {
		t.Fatalf("after %d messages: %v", stored, err)
	}
	if got := count(t, b, proto.StreamRaw); got != uint64(stored) {
		t.Errorf("%d stored, %d there: a full stream dropped something", stored, got)
	}
}

func TestLookup(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	var msgs []bus.Message
	var subjects []string
	for i := range 2500 {
		subject := proto.BucketSubject(proto.BucketHashes, fmt.Sprintf("s.1.h%d", i))
		subjects = append(subjects, subject)
		if i%10 == 0 {
			msgs = append(msgs, bus.Message{Subject: subject, Data: fmt.Append(nil, i), ExpectEmpty: true})
		}
	}
	if found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketHashes), subjects); err != nil || len(found) != 0 {
		t.Fatalf("empty bucket: %d found, %v", len(found), err)
	}
	if err := b.PublishBatch(ctx, proto.BucketStream(proto.BucketHashes), msgs); err != nil {
		t.Fatal(err)
	}
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketHashes), subjects)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 250 {
		t.Errorf("%d of 250 found", len(found))
	}
	if got := string(found[subjects[120]].Data); got != "120" {
		t.Errorf("value %q", got)
	}
	// The bucket that was made as a stream is a bucket to the client.
	kv, err := b.KeyValue(ctx, proto.BucketHashes)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(ctx, "s.1.h120"); err != nil || string(e.Value()) != "120" {
		t.Errorf("through the bucket: %v %v", e, err)
	}
}

func TestProvisionIsIdempotentAndPrunes(t *testing.T) {
	b := bustest.New(t, bustest.Topology("one", "two and a half"))
	ctx := bustest.Context(t)
	if err := b.PublishBatch(ctx, proto.StreamUnique, messages(5, "x")); err != nil {
		t.Fatal(err)
	}
	pull, err := b.Pull(ctx, proto.StreamUnique, proto.OutputConsumer("one"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := pull.Next(ctx, 5, 5*time.Second)
	if err != nil || len(got) == 0 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	for _, m := range got {
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
	leftover, err := b.Provision(ctx, bustest.Topology("one"), false)
	if err != nil || len(leftover) != 1 || leftover[0] != "two and a half" {
		t.Fatalf("leftover %q, %v", leftover, err)
	}
	c, err := b.JetStream().Consumer(ctx, proto.StreamUnique, proto.OutputConsumer("one"))
	if err != nil || c.CachedInfo().AckFloor.Stream < uint64(len(got)) {
		t.Errorf("the position was lost: %+v, %v", c.CachedInfo().AckFloor, err)
	}
	if _, err := b.Provision(ctx, bustest.Topology("one"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JetStream().Consumer(ctx, proto.StreamUnique, proto.OutputConsumer("two and a half")); err == nil {
		t.Error("prune left the consumer")
	}
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{proto.BucketSubject(proto.BucketLedgers, ">")})
	if err != nil || len(found) != 1 {
		t.Errorf("%d ledgers, %v", len(found), err)
	}
}

func TestNewOutputStartsNow(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	if err := b.PublishBatch(ctx, proto.StreamUnique, messages(5, "old")); err != nil {
		t.Fatal(err)
	}
	topology := bustest.Topology("all")
	topology.Outputs = append(topology.Outputs, bus.Output{Name: "new"})
	if _, err := b.Provision(ctx, topology, false); err != nil {
		t.Fatal(err)
	}
	for name, pending := range map[string]uint64{"all": 5, "new": 0} {
		c, err := b.JetStream().Consumer(ctx, proto.StreamUnique, proto.OutputConsumer(name))
		if err != nil || c.CachedInfo().NumPending != pending {
			t.Errorf("output %s: %v, %v", name, c.CachedInfo().NumPending, err)
		}
	}
}

func TestSecondProcessOnTheFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	server := bustest.Server(t, dir)
	_, err := embedded.Start(embedded.Settings{Dir: dir, Listen: "127.0.0.1:0", Logger: bustest.Logger()})
	if !errors.Is(err, embedded.ErrInUse) {
		t.Fatalf("second server: %v", err)
	}
	c, err := bus.ReadConnection(dir)
	if err != nil || c != server.Connection() {
		t.Errorf("connection file %+v, %v", c, err)
	}
	_ = server.Shutdown(context.Background())
	again := bustest.Server(t, dir)
	_ = again.Shutdown(context.Background())
}

func TestDataSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	server := bustest.Server(t, dir)
	b := bustest.Connect(t, server)
	ctx := bustest.Context(t)
	if _, err := b.Provision(ctx, bustest.Topology("devo"), false); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(ctx, proto.StreamUnique, messages(30, "r")); err != nil {
		t.Fatal(err)
	}
	_ = server.Shutdown(context.Background())
	b = bustest.Connect(t, bustest.Server(t, dir))
	if got := count(t, b, proto.StreamUnique); got != 30 {
		t.Errorf("%d of 30 after a restart", got)
	}
}

// Only services that were not stopped in order leave a note, and a server that was started for a command leaves it as
// it is.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct {
		what                     string
		interrupted, begin, kill bool
	}{
		{what: "new folder"},
		{what: "services, killed", begin: true, kill: true},
		{what: "a command", interrupted: true},
		{what: "a start that failed", interrupted: true},
		{what: "services again", interrupted: true, begin: true},
		{what: "after an orderly stop"},
	} {
		server := bustest.Server(t, dir)
		if got := server.Interrupted(); got != step.interrupted {
			t.Errorf("%s: interrupted %v", step.what, got)
		}
		if step.begin {
			if err := server.Begin(); err != nil {
				t.Fatal(err)
			}
		}
		note, _ := os.ReadFile(filepath.Join(dir, "running"))
		if err := server.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if step.kill { // as the folder is then
			if err := os.WriteFile(filepath.Join(dir, "running"), note, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestListenRefusesTheNetwork(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":4222", "192.0.2.1:1", "127.0.0.1", "127.0.0.1:x"} {
		if s, err := embedded.Start(embedded.Settings{Dir: t.TempDir(), Listen: listen, Logger: bustest.Logger()}); err == nil {
			_ = s.Shutdown(context.Background())
			t.Errorf("%s was accepted", listen)
		}
	}
}
