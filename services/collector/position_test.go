package collector

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/proto"
)

// unsteady is a bucket whose first updates go wrong.
type unsteady struct {
	jetstream.KeyValue
	before func()                 // runs before the first update
	lost   []bool                 // of each update whose answer is lost: whether it was stored
	after  func(data []byte) bool // runs after an update that was stored and whose answer is lost
}

var errNoAnswer = errors.New("no answer")

func (u *unsteady) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if u.before != nil {
		u.before()
		u.before = nil
	}
	if len(u.lost) == 0 {
		return u.KeyValue.Update(ctx, key, value, revision)
	}
	stored := u.lost[0]
	u.lost = u.lost[1:]
	if stored {
		if _, err := u.KeyValue.Update(ctx, key, value, revision); err != nil {
			return 0, err
		}
		if u.after != nil {
			u.after(value)
		}
	}
	return 0, errNoAnswer
}

// However the record moves under the command and whatever answers are lost, a resend counts one generation
// and is applied to what was there last.
func TestAChangeIsStoredOnce(t *testing.T) {
	source := proto.Source{Input: "defender_for_iot", InputID: "1", Service: "iot_security_alerts"}
	key := proto.RecordKey(source)
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	server, err := embedded.Start(embedded.Settings{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	to := server.Connection()
	b, err := bus.Connect(bus.Settings{InProcess: server.InProcess(), User: to.User, Password: to.Secret(), Name: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	kv, err := b.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: proto.BucketCheckpoints, History: 10})
	if err != nil {
		t.Fatal(err)
	}
	put := func(c *proto.Checkpoint) {
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	// moves is a fetcher's move of the position.
	moves := func([]byte) bool {
		entry, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := proto.DecodeCheckpoint(entry.Value())
		if err != nil {
			t.Fatal(err)
		}
		c.LastEventTime = c.LastEventTime.Add(time.Hour)
		c.Rescan = append(c.Rescan, proto.Window{From: begin, To: begin.Add(time.Second)})
		put(c)
		return true
	}
	for name, tc := range map[string]struct {
		kv     unsteady
		rescan int // what the fetcher wrote is not lost
	}{
		"undisturbed":                        {unsteady{}, 0},
		"the fetcher is faster":              {unsteady{before: func() { moves(nil) }}, 1},
		"answer lost, stored":                {unsteady{lost: []bool{true}}, 0},
		"answer lost, not stored":            {unsteady{lost: []bool{false, false}}, 0},
		"answer lost, stored, moved on":      {unsteady{lost: []bool{true}, after: moves}, 1},
		"faster, then answer lost":           {unsteady{before: func() { moves(nil) }, lost: []bool{true}}, 1},
		"not stored, and the fetcher faster": {unsteady{lost: []bool{false, false}, before: func() { moves(nil) }}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			put(&proto.Checkpoint{PersistenceVersion: 1, Generation: 4, LastEventTime: begin.Add(48 * time.Hour), Floor: begin})
			tc.kv.KeyValue = kv
			p := &positions{kv: &tc.kv}
			_, after, _, err := p.change(t.Context(), source, func(b base) (*proto.Checkpoint, error) {
				return resetTo(source, b, begin.Add(24*time.Hour), true, begin)
			})
			if err != nil {
				t.Fatal(err)
			}
			b, err := p.read(t.Context(), source)
			if err != nil {
				t.Fatal(err)
			}
			if c := b.record; c.Generation != 5 || after.Generation != 5 || len(c.Replaced) != 1 || len(c.Rescan) != tc.rescan || c.Claiming == nil {
				t.Errorf("record %+v", c)
			}
		})
	}
}
