package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// TestLookupAroundDamage: a message that the server cannot read counts as not there, wherever it is among the others;
// they are found. A look-up that broke off would make others of what it has not seen.
func TestLookupAroundDamage(t *testing.T) {
	dir := t.TempDir()
	server := bustest.Server(t, dir)
	b := bustest.Connect(t, server)
	ctx := bustest.Context(t)
	if _, err := b.Provision(ctx, bustest.Topology(), false); err != nil {
		t.Fatal(err)
	}
	stream := proto.BucketStream(proto.BucketHashes)
	var msgs []bus.Message
	var subjects []string
	for i := range 20 {
		subject := proto.BucketSubject(proto.BucketHashes, fmt.Sprintf("a.b.c.1.hash%02d", i))
		subjects = append(subjects, subject)
		msgs = append(msgs, bus.Message{Subject: subject, Data: proto.Claim{RawSequence: uint64(i + 1)}.Encode(), ExpectEmpty: true})
	}
	if err := b.PublishBatch(ctx, stream, msgs); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(ctx), server.Shutdown(context.Background())); err != nil {
		t.Fatal(err)
	}
	damaged := map[int]bool{0: true, 7: true, 8: true, 19: true}
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", bus.Account, "streams", stream, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks %v, %v", blocks, err)
	}
	data, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	// The record's checksum is its last 8 bytes; of the last record it tells whether the index is current, so that one
	// is damaged in its header.
	for i := range damaged {
		at := bytes.Index(data, []byte(subjects[i]))
		data[at+len(subjects[i])+8] ^= 0xff
	}
	if err := os.WriteFile(blocks[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	b = bustest.Connect(t, bustest.Server(t, dir))
	found, err := b.Lookup(ctx, stream, subjects)
	if err != nil {
		t.Fatal(err)
	}
	for i, subject := range subjects {
		s, there := found[subject]
		if there == damaged[i] || there && string(s.Data) != fmt.Sprint(i+1) {
			t.Errorf("%s: %v %q, damaged %v", subject, there, s.Data, damaged[i])
		}
	}
	if found, err := b.Lookup(ctx, stream, subjects[:1]); err != nil || len(found) != 0 {
		t.Errorf("the damaged one alone: %v, %v", found, err)
	}
	if _, err := b.Lookup(ctx, stream, []string{proto.BucketSubject(proto.BucketHashes, ">")}); !errors.Is(err, bus.ErrDamaged) {
		t.Errorf("all of them by a wildcard: %v, want ErrDamaged", err)
	}
	all, unread, err := b.LookupAll(ctx, stream, proto.BucketSubject(proto.BucketHashes, ">"))
	if err != nil || len(all) != len(subjects)-len(damaged) || len(unread) != len(damaged) {
		t.Errorf("all of them around the damaged ones: %d found, %v cannot be read, %v", len(all), unread, err)
	}
	for i, subject := range subjects {
		if slices.Contains(unread, subject) != damaged[i] {
			t.Errorf("%s is damaged: %v; unread %v", subject, damaged[i], unread)
		}
	}
	kv, err := b.KeyValue(ctx, proto.BucketHashes)
	if err != nil {
		t.Fatal(err)
	}
	// What is deleted is neither there nor damaged.
	if err := kv.Delete(ctx, "a.b.c.1.hash01"); err != nil {
		t.Fatal(err)
	}
	if all, unread, err := b.LookupAll(ctx, stream, proto.BucketSubject(proto.BucketHashes, ">")); err != nil || len(all) != len(subjects)-len(damaged)-1 || len(unread) != len(damaged) {
		t.Errorf("with one deleted: %d found, %v cannot be read, %v", len(all), unread, err)
	}
}
