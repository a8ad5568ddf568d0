package fetcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// errRecordChanged: someone who does not hold the lease, an operator's command, has written the record.
// What this session knows of the position is void; it reads the record anew.
var errRecordChanged = errors.New("the record was changed from outside")

// record is the source's checkpoint as this holder of the lease last wrote it. It is safe for concurrent
// use; updates are made one at a time.
//
// An update whose outcome is unknown is settled by reading the record first and renewing the lease after
// that: if the lease is still held then, nobody had taken over when the record was read, so what stood
// there was this holder's own write or its predecessor.
type record struct {
	kv     keyValue
	key    string
	lease  *lease
	timing timing

	gate     gate // held over every write and what settles it
	revision uint64

	mu      sync.Mutex
	current proto.Checkpoint
}

func newRecord(kv keyValue, key string, l *lease, t timing) *record {
	return &record{kv: kv, key: key, lease: l, timing: t, gate: newGate()}
}

// stored notes what stands in the bucket now; the gate is held.
func (r *record) stored(c proto.Checkpoint, revision uint64) {
	r.revision = revision
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = c
}

// get reads the record with a deadline.
func (r *record) get(ctx context.Context) (jetstream.KeyValueEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.call)
	defer cancel()
	return r.kv.Get(ctx, r.key)
}

// open reads the record and writes it back unchanged, which moves its revision and so locks out every
// earlier holder. It returns false when there is no record yet. An unreadable record is an error.
func (r *record) open(ctx context.Context) (bool, error) {
	if err := r.gate.enter(ctx); err != nil {
		return false, err
	}
	defer r.gate.leave()
	for {
		entry, err := r.get(ctx)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the record %s: %w", r.key, err)
		}
		c, err := proto.DecodeCheckpoint(entry.Value())
		if err != nil {
			return false, unreadable(r.key, err)
		}
		revision, err := r.put(ctx, entry.Value(), entry.Revision())
		if err == nil {
			r.stored(*c, revision)
			return true, nil
		}
		if err := r.lease.confirm(ctx); err != nil {
			return false, err
		}
		// Its former holder was faster, or the outcome is unknown: once more with what is there now.
		if !sleep(ctx, nil, jittered(r.timing.poll)) {
			return false, ctx.Err()
		}
	}
}

// create writes the first record. If there is one already, or the outcome is unknown, it fails and the
// caller opens again.
func (r *record) create(ctx context.Context, c proto.Checkpoint) error {
	if err := r.gate.enter(ctx); err != nil {
		return err
	}
	defer r.gate.leave()
	data, err := c.Encode()
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	callCtx, cancel := context.WithTimeout(ctx, r.timing.call)
	defer cancel()
	revision, err := r.kv.Create(callCtx, r.key, data)
	if err != nil {
		return fmt.Errorf("create the record %s: %w", r.key, err)
	}
	r.stored(c, revision)
	return nil
}

func (r *record) put(ctx context.Context, data []byte, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.call)
	defer cancel()
	return r.kv.Update(ctx, r.key, data, revision)
}

// read returns a copy of the record as last written.
func (r *record) read() proto.Checkpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return clone(r.current)
}

func clone(c proto.Checkpoint) proto.Checkpoint {
	c.LastIDs = slices.Clone(c.LastIDs)
	c.Replaced = slices.Clone(c.Replaced)
	c.Subscriptions = slices.Clone(c.Subscriptions)
	c.Rescan = slices.Clone(c.Rescan)
	if c.Claiming != nil {
		claiming := *c.Claiming
		claiming.IDs = slices.Clone(claiming.IDs)
		c.Claiming = &claiming
	}
	return c
}

// update applies change to a copy of the record and stores it; change returns false if there is nothing
// to store. When it returns nil the record is stored. It tries until ctx ends; errFenced and
// errRecordChanged mean that nothing of this session may be stored any more.
func (r *record) update(ctx context.Context, change func(*proto.Checkpoint) bool) error {
	if err := r.gate.enter(ctx); err != nil {
		return err
	}
	defer r.gate.leave()
	next := r.read()
	if !change(&next) {
		return nil
	}
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	for {
		revision, err := r.put(ctx, data, r.revision)
		if err != nil {
			revision, err = r.settle(ctx, data)
		}
		if err != nil {
			return err
		}
		if revision != 0 {
			r.stored(next, revision)
			return nil
		}
	}
}

// settle finds out what became of a write of data over r.revision: stored (its revision), not stored (0)
// or overtaken (an error).
func (r *record) settle(ctx context.Context, data []byte) (uint64, error) {
	for {
		entry, err := r.get(ctx)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return 0, fmt.Errorf("%w: it was removed", errRecordChanged)
		}
		if err == nil && entry.Revision() >= r.revision { // below: a replica that lags behind
			if err := r.lease.confirm(ctx); errors.Is(err, errFenced) {
				return 0, err
			} else if err == nil {
				switch {
				case entry.Revision() == r.revision:
					return 0, nil
				case bytes.Equal(entry.Value(), data):
					return entry.Revision(), nil
				default:
					return 0, errRecordChanged
				}
			}
		}
		if !sleep(ctx, nil, jittered(r.timing.poll)) {
			return 0, ctx.Err()
		}
	}
}

// check notices that an operator's command has written the record; other trouble is no news here.
func (r *record) check(ctx context.Context) error {
	if err := r.gate.enter(ctx); err != nil {
		return err
	}
	defer r.gate.leave()
	entry, err := r.get(ctx)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return errRecordChanged
	case err != nil || entry.Revision() <= r.revision:
		return nil
	}
	if err := r.lease.confirm(ctx); err != nil {
		return err
	}
	return errRecordChanged
}

// fresh is the record of a source's first start.
func (f *Fetcher) fresh(now time.Time, readable []string) proto.Checkpoint {
	c := proto.Checkpoint{PersistenceVersion: proto.PersistenceVersion, Generation: 1}
	f.begin(&c, now, readable)
	return c
}

// begin sets c to the start of its generation.
func (f *Fetcher) begin(c *proto.Checkpoint, now time.Time, readable []string) {
	c.StartTime, c.Floor = nil, now.Add(-24*time.Hour)
	if !f.service.Start.IsZero() {
		start := f.service.Start.UTC()
		c.StartTime, c.Floor = &start, start
	}
	c.LastEventTime, c.LastIDs = c.Floor, nil
	c.Deduplication = f.service.Deduplication
	c.Subscriptions, c.Rescan, c.Claiming = readable, nil, nil
	swept := f.ownMoment(now) // what follows reads everything
	c.SweptAt = &swept
}

// sameStart compares the recorded start with the configured one as instants.
func (f *Fetcher) sameStart(c *proto.Checkpoint) bool {
	if c.StartTime == nil || f.service.Start.IsZero() {
		return c.StartTime == nil && f.service.Start.IsZero()
	}
	return c.StartTime.Equal(f.service.Start)
}

// changed says what a command made of the record; before is nil if none did.
func (f *Fetcher) changed(before *proto.Checkpoint, r *record) {
	if before == nil {
		return
	}
	f.logger.Warn(fmt.Sprintf("A command has changed the persistence, going on from there. Previous content: %s. New content: %s", text(*before), text(r.read())))
}

// text is the record as a line for the log, of long lists the beginning.
func text(c proto.Checkpoint) string {
	c.LastIDs, c.Subscriptions = beginning(c.LastIDs), beginning(c.Subscriptions)
	b, err := json.Marshal(c)
	if err != nil {
		return "unprintable"
	}
	return string(b)
}

func beginning(list []string) []string {
	const shown = 10
	if len(list) <= shown {
		return list
	}
	return append(slices.Clone(list[:shown]), fmt.Sprintf("and %d more", len(list)-shown))
}
