package fetcher

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// These tests run against a real JetStream server.

// server starts one, provisioned.
func server(t *testing.T) *bus.Bus {
	t.Helper()
	return bustest.New(t, bustest.Topology())
}

func checkpoints(t *testing.T, b *bus.Bus) jetstream.KeyValue {
	t.Helper()
	kv, err := b.KeyValue(t.Context(), proto.BucketCheckpoints)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// quick are intervals for tests that wait for a lease to change hands.
func quick() timing {
	t := defaultTiming()
	t.renew, t.expiry, t.giveUp, t.poll, t.leaseCall = 100*time.Millisecond, time.Second, 700*time.Millisecond, 20*time.Millisecond, 500*time.Millisecond
	return t
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func testLease(kv keyValue, holder string) *lease {
	return newLease(kv, proto.LeaseKey(testSource), holder, quick(), slog.New(slog.DiscardHandler))
}

func TestLeaseHasOneHolder(t *testing.T) {
	kv := checkpoints(t, server(t))
	a, b := testLease(kv, "a"), testLease(kv, "b")
	if err := a.acquire(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	// b stands by as long as a renews, however long that is.
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	go func() { kept <- a.keep(ctx) }()
	acquired := make(chan error, 1)
	go func() { acquired <- b.acquire(t.Context(), false) }()
	select {
	case <-acquired:
		t.Fatal("two holders")
	case <-time.After(3 * time.Second):
	}
	// a stops renewing without a word: b takes over.
	cancel()
	if err := <-kept; err != nil {
		t.Errorf("keep: %v", err)
	}
	if err := <-acquired; err != nil {
		t.Fatal(err)
	}
	if err := a.confirm(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("the former holder's renewal: %v", err)
	}
	if b.epoch <= a.epoch {
		t.Errorf("epochs %d, %d", a.epoch, b.epoch)
	}
	// A former holder cannot release what it does not hold; the holder can.
	a.release(t.Context())
	if err := b.confirm(t.Context()); err != nil {
		t.Errorf("the holder's renewal: %v", err)
	}
	b.release(t.Context())
	c := testLease(kv, "c")
	if err := c.acquire(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	// What a killed process left is taken at once by a process that is alone.
	if err := testLease(kv, "d").acquire(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := c.keep(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("keep of a lease that was taken: %v", err)
	}
}

// A fetcher that could not renew its lease, because it was cut off for a while, need not wait until its own lease has expired.
func TestOwnLeaseIsTakenBackAtOnce(t *testing.T) {
	kv := checkpoints(t, server(t))
	first := testLease(kv, "a")
	if err := first.acquire(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	again := newLease(kv, proto.LeaseKey(testSource), "a", defaultTiming(), slog.New(slog.DiscardHandler))
	again.own = first.nonce
	again.timing.expiry = time.Hour // so that waiting for it fails the test
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := again.acquire(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := first.confirm(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("a late renewal of the last acquisition: %v", err)
	}
	// What another one holds meanwhile is not its own.
	third := testLease(kv, "a")
	third.own, third.timing.expiry = first.nonce, time.Hour
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := third.acquire(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it took what another one holds: %v", err)
	}
}

func TestPausedHolderCannotMoveTheRecord(t *testing.T) {
	kv := checkpoints(t, server(t))
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	held := func(l *lease) *record {
		if err := l.acquire(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		return newRecord(kv, proto.RecordKey(testSource), l, quick())
	}
	move := func(r *record, to time.Time) error {
		return r.update(t.Context(), func(c *proto.Checkpoint) bool { c.LastEventTime = to; return true })
	}
	a := held(testLease(kv, "a"))
	if found, err := a.open(t.Context()); found || err != nil {
		t.Fatalf("open: %v %v", found, err)
	}
	first := proto.Checkpoint{PersistenceVersion: 1, Generation: 1, LastEventTime: begin, Floor: begin}
	if err := a.create(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := move(a, begin.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// a is paused; b takes over and has not moved anything yet.
	b := held(testLease(kv, "b"))
	if found, err := b.open(t.Context()); !found || err != nil {
		t.Fatalf("open: %v %v", found, err)
	}
	if err := move(a, begin.Add(2*time.Hour)); !errors.Is(err, errFenced) {
		t.Errorf("the paused holder's update: %v", err)
	}
	if err := move(b, begin.Add(90*time.Minute)); err != nil {
		t.Errorf("the holder's update: %v", err)
	}
	if err := a.create(t.Context(), first); err == nil {
		t.Error("the paused holder created a record over the other's")
	}
	if err := a.check(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("the paused holder's check: %v", err)
	}
	entry, err := kv.Get(t.Context(), proto.RecordKey(testSource))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := proto.DecodeCheckpoint(entry.Value()); err != nil || !c.LastEventTime.Equal(begin.Add(90*time.Minute)) {
		t.Errorf("record %s", entry.Value())
	}
	// An operator's command between two updates of the holder.
	if _, err := kv.Put(t.Context(), proto.RecordKey(testSource), entry.Value()); err != nil {
		t.Fatal(err)
	}
	if err := b.check(t.Context()); !errors.Is(err, errRecordChanged) {
		t.Errorf("check after a command: %v", err)
	}
	if err := move(b, begin.Add(3*time.Hour)); !errors.Is(err, errRecordChanged) {
		t.Errorf("update after a command: %v", err)
	}
}

// flaky loses the answers of updates, with the update done or not.
type flaky struct {
	jetstream.KeyValue
	lose atomic.Int32
	done bool
}

func (f *flaky) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if f.lose.Add(-1) < 0 {
		return f.KeyValue.Update(ctx, key, value, revision)
	}
	if f.done {
		if _, err := f.KeyValue.Update(ctx, key, value, revision); err != nil {
			return 0, err
		}
	}
	return 0, context.DeadlineExceeded
}

func TestUpdateWithUnknownOutcome(t *testing.T) {
	for name, done := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			kv := &flaky{KeyValue: checkpoints(t, server(t)), done: done}
			l := testLease(kv, "a")
			if err := l.acquire(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			r := newRecord(kv, proto.RecordKey(testSource), l, quick())
			begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			if err := r.create(t.Context(), proto.Checkpoint{PersistenceVersion: 1, Generation: 1, LastEventTime: begin, Floor: begin}); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				// Also the renewals that settle an outcome may have an unknown one.
				kv.lose.Store(int32(1 + i))
				to := begin.Add(time.Duration(i+1) * time.Hour)
				if err := r.update(t.Context(), func(c *proto.Checkpoint) bool { c.LastEventTime = to; return true }); err != nil {
					t.Fatal(err)
				}
				entry, err := kv.Get(t.Context(), r.key)
				if err != nil {
					t.Fatal(err)
				}
				c, err := proto.DecodeCheckpoint(entry.Value())
				if err != nil || !c.LastEventTime.Equal(to) || entry.Revision() != r.revision {
					t.Errorf("record %s at %d, held %d", entry.Value(), entry.Revision(), r.revision)
				}
			}
		})
	}
}

// failing is a real bus whose publications can be made to fail.
type failing struct {
	*bus.Bus
	mu  sync.Mutex
	err error
}

func (f *failing) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) PublishBatch(ctx context.Context, stream string, msgs []bus.Message) error {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Bus.PublishBatch(ctx, stream, msgs)
}

func TestFetchIntoARealStream(t *testing.T) {
	b := &failing{Bus: server(t), err: errors.New("simulated: no answer")}
	kv := checkpoints(t, b.Bus)
	w := newWorld()
	now := time.Now().UTC().Truncate(time.Second)
	w.putMany(2500, now.Add(-20*time.Hour), time.Second)
	position := func() time.Time {
		entry, err := kv.Get(t.Context(), proto.RecordKey(testSource))
		if err != nil {
			return time.Time{}
		}
		c, err := proto.DecodeCheckpoint(entry.Value())
		if err != nil {
			t.Fatal(err)
		}
		return c.LastEventTime
	}
	count := func() uint64 {
		s, err := b.JetStream().Stream(t.Context(), proto.StreamRaw)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Msgs
	}
	start := now.Add(-24 * time.Hour)
	r := w.start(t, func(o *Options) {
		o.Bus, o.Service.Period, o.Service.Start = b, time.Second, start
	})
	eventually(t, "a pull fails", func() bool { return r.logs.count("The pull failed") > 0 })
	if !position().Equal(start) || count() != 0 {
		t.Errorf("position %v with nothing in RAW", position())
	}
	b.set(nil)
	end := now.Add(-20*time.Hour + 2499*time.Second)
	eventually(t, "the position reaches the newest row", func() bool { return position().Equal(end) })
	if n := count(); n != 2500 {
		t.Errorf("%d rows in RAW", n)
	}
	stream, err := b.JetStream().Stream(t.Context(), proto.StreamRaw)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := proto.DecodeEnvelope(m.Data)
	if err != nil || m.Subject != proto.RawSubject(testSource) || m.Header.Get(jetstream.MsgIDHeader) == "" {
		t.Errorf("message on %s: %v", m.Subject, err)
	}
	// Claims in the real bucket settle rows for a fetcher that remembers nothing.
	hashes, err := b.KeyValue(t.Context(), proto.BucketHashes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hashes.Create(t.Context(), proto.HashKey(testSource, 1, e.Hash), proto.Claim{RawSequence: 1}.Encode()); err != nil {
		t.Fatal(err)
	}
	r.halt(t)
	standby := w.start(t, func(o *Options) {
		o.Bus, o.Service.Period, o.Service.Start = b, time.Second, start
	})
	eventually(t, "the lookback is done", func() bool { return standby.logs.count("The lookback to") > 0 })
	if n := count(); n != 2500+2499 {
		t.Errorf("%d rows in RAW: all but the claimed one are stored once more", n)
	}
	standby.halt(t)
}

func TestStandbyTakesOverFromAnOrderlyStop(t *testing.T) {
	b := server(t)
	w := newWorld()
	w.put("/a", time.Now().Add(-time.Hour))
	change := func(o *Options) { o.Bus, o.Service.Period = b, time.Second }
	first := w.start(t, change)
	has := func(id string) func() bool {
		return func() bool {
			s, err := b.JetStream().Stream(t.Context(), proto.StreamRaw)
			if err != nil {
				t.Fatal(err)
			}
			for i := s.CachedInfo().State.FirstSeq; i <= s.CachedInfo().State.LastSeq; i++ {
				if m, err := s.GetMsg(t.Context(), i); err == nil {
					if e, err := proto.DecodeEnvelope(m.Data); err == nil && e.AlertID == id {
						return true
					}
				}
			}
			return false
		}
	}
	eventually(t, "the first row is in RAW", has("/a"))
	second := w.start(t, change)
	eventually(t, "the second stands by", func() bool { return second.logs.count("standing by: another fetcher is active") == 1 })
	if err := second.Ready(); err != nil {
		t.Errorf("a standby is not ready: %v", err)
	}
	if n := second.logs.count(""); n != 1 {
		t.Errorf("a standby says %d lines, want 1", n)
	}
	first.halt(t)
	w.with(func() { w.put("/b", time.Now()) })
	eventually(t, "the second has taken over", has("/b"))
	second.halt(t)
}
