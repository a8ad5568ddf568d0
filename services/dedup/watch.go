package dedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// scrubbed is how many messages of a stream one round reads through.
const scrubbed = 20_000

// watch notices what the bus has lost of what it had acknowledged. Three things tell:
//
//   - the stream's own figures: RAW and UNIQUE are purged from the front only, up to what is settled, so a gap inside
//     or a front that has moved further is a loss, and so is an end that has gone back;
//   - reading: what waits for longer than a round, and what waited when this process or the server began, is read
//     through once, and the claims whole, since the server passes over what it cannot read without a word;
//   - the claims: each one's alert is in UNIQUE or on its way.
//
// It belongs to the keeper and is not safe for concurrent use.
type watch struct {
	bus *bus.Bus

	seen     *proto.Watch
	revision uint64
	stored   []byte

	connection uint64 // of the last round; 0: this is the first
	rawLast    uint64 // ends at the last round
	hashesLast uint64
	scrubs     map[string]*scrub
	audit      *audit // nil: none is under way
}

func newWatch(b *bus.Bus) *watch { return &watch{bus: b, scrubs: map[string]*scrub{}} }

// scrub is how far a stream has been read through.
type scrub struct {
	next  uint64
	start uint64 // up to here everything is read, settled meanwhile or not
	last  uint64 // the stream's end at the last round
}

// audit is how far the look at the latest claims has come that follows each start.
type audit struct {
	next    uint64
	waiting uint64 // the first claim whose alert was on its way; 0: none
}

// sight is what a round looks at.
type sight struct {
	volumes map[string]bus.Volume
	// settled is up to where each stream's messages are settled.
	settled map[string]uint64
	// connection is the one of the round; fresh: the process or the server may have been restarted since the last one.
	connection uint64
	fresh      bool
}

var hashesStream = proto.BucketStream(proto.BucketHashes)

// look compares the streams with what was seen of them last. It returns how many messages each has lost since, of those
// that can be counted, and notes what it sees; keep stores that.
func (w *watch) look(ctx context.Context, s *sight) (lost map[string]uint64, err error) {
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	s.fresh = w.connection != s.connection
	lost = map[string]uint64{}
	var errs []error
	for _, name := range []string{proto.StreamRaw, proto.StreamUnique, hashesStream} {
		v, known := s.volumes[name]
		if !known {
			continue
		}
		before := w.seen.Streams[name].Settled
		n, err := w.compare(ctx, name, v, s)
		holes, scrubErr := w.scrub(ctx, name, v, s, before)
		errs = append(errs, err, scrubErr)
		n += holes
		if n > 0 {
			lost[name] = n
		}
	}
	if unique, known := s.volumes[proto.StreamUnique]; known && unique.Messages > 0 && unique.FirstSequence <= s.settled[proto.StreamUnique]+1 {
		w.seen.UniqueSince = time.Time{}
		if unique.FirstSequence > 1 {
			w.seen.UniqueSince = unique.FirstTime
		}
	}
	if err := errors.Join(errs...); err != nil {
		return lost, err
	}
	return lost, nil
}

// compare looks at the figures of one stream.
func (w *watch) compare(ctx context.Context, name string, v bus.Volume, s *sight) (lost uint64, err error) {
	was, known := w.seen.Streams[name]
	is := proto.Watched{Last: v.LastSequence, Gap: v.Gap(), Settled: max(was.Settled, s.settled[name])}
	for _, r := range was.Holes {
		if r.Last >= v.FirstSequence {
			is.Holes = append(is.Holes, r)
		}
	}
	if is.LastTime, err = w.storedAt(ctx, name, v.LastSequence); err != nil {
		return 0, err
	}
	switch {
	case v.LastSequence < was.Last:
		lost += was.Last - v.LastSequence
	case s.fresh && known && !was.LastTime.IsZero() && was.Last >= v.FirstSequence && name != hashesStream:
		at, err := w.storedAt(ctx, name, was.Last)
		if err != nil {
			return 0, err
		}
		if !at.Equal(was.LastTime) {
			lost++ // that one at least
		}
	}
	if name == hashesStream {
		// Claims that are replaced leave gaps, too; while nobody works there are none.
		if s.fresh && known && is.Gap > was.Gap {
			lost = max(lost, is.Gap-was.Gap)
		}
		w.seen.Streams[name] = is
		return lost, nil
	}
	if is.Gap > was.Gap {
		lost = max(lost, is.Gap-was.Gap)
	}
	if front := v.FirstSequence - min(v.FirstSequence, 1); known && front > is.Settled {
		lost += front - is.Settled
		is.Settled = front // said once
	}
	w.seen.Streams[name] = is
	return lost, nil
}

// storedAt is when the message with that sequence was stored, the zero time where there is none.
func (w *watch) storedAt(ctx context.Context, name string, sequence uint64) (time.Time, error) {
	s, err := w.bus.Stream(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	m, err := s.GetMsg(ctx, max(sequence, 1))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s at sequence %d: %w", name, sequence, err)
	}
	return m.Time, nil
}

// scrub reads on through what waits, and returns how many messages cannot be read that were not known. before is up to
// where the stream was settled when it was last seen: what was settled since a start may have been passed over.
func (w *watch) scrub(ctx context.Context, name string, v bus.Volume, s *sight, before uint64) (lost uint64, err error) {
	settled := s.settled[name]
	at := w.scrubs[name]
	if at == nil || s.fresh {
		at = &scrub{next: min(before, settled) + 1, start: v.LastSequence, last: v.LastSequence}
		if name == hashesStream {
			at.next = v.FirstSequence // all of them are asked for, again and again
		}
		w.scrubs[name] = at
	}
	at.next = max(at.next, v.FirstSequence)
	if at.next > at.start {
		at.next = max(at.next, settled+1)
	}
	until := max(at.start, at.last)
	at.last = v.LastSequence
	var holes proto.Sequences
	for read := 0; at.next <= until && read < scrubbed; {
		messages, err := w.bus.Read(ctx, name, at.next)
		if err != nil {
			return 0, err
		}
		read += len(messages)
		for _, m := range messages {
			if m.Sequence > until {
				break
			}
			holes.AddRange(proto.Range{First: at.next, Last: m.Sequence - 1})
			at.next = m.Sequence + 1
		}
		if len(messages) == 0 || messages[len(messages)-1].Sequence > until {
			holes.AddRange(proto.Range{First: at.next, Last: until})
			at.next = until + 1
		}
	}
	if holes.Len() == 0 {
		return 0, nil
	}
	deleted, err := w.bus.Deleted(ctx, name) // these are the gap's
	if err != nil {
		return 0, err
	}
	seen := w.seen.Streams[name]
	after, err := w.bus.Volume(ctx, name)
	if err != nil {
		return 0, err
	}
	for _, r := range append(append([]proto.Range{{First: 0, Last: after.FirstSequence - min(after.FirstSequence, 1)}}, deleted.Ranges()...), seen.Holes...) {
		holes.RemoveRange(r)
	}
	if len(seen.Holes)+len(holes.Ranges()) <= maxHoles {
		seen.Holes = append(seen.Holes, holes.Ranges()...)
		w.seen.Streams[name] = seen
	}
	return uint64(holes.Len()), nil
}

// maxHoles bounds what is kept of messages that cannot be read; more of them are noticed again after a restart.
const maxHoles = 1000

// giveUp acknowledges what cannot be read in the place of who would have got it: the server tries to deliver such a
// message again for ever, and everything behind it would never count as settled.
func (w *watch) giveUp(ctx context.Context, name string, settled uint64, consumers []string) error {
	for _, r := range w.seen.Streams[name].Holes {
		for sequence := max(r.First, settled+1); sequence <= r.Last; sequence++ {
			for _, consumer := range consumers {
				// nats-server, consumer.go, ackReplyInfo: deliveries, sequence, delivery's sequence, time, pending. What
				// counts is the sequence.
				if err := w.bus.Conn().Publish(fmt.Sprintf("$JS.ACK.%s.%s.1.%d.1.0.0", name, consumer, sequence), []byte("+TERM")); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

// purgeable is up to where a stream may be purged: what waited at the start is read through first.
func (w *watch) purgeable(name string, floor uint64) uint64 {
	at := w.scrubs[name]
	if at == nil || at.next > at.start {
		return floor
	}
	return min(floor, at.next-1)
}

// settle notes up to where the claims are known to be in order: what RAW held at the last round is settled by now, so
// every claim of then is, too.
func (w *watch) settle(s *sight) {
	raw, hashes := s.volumes[proto.StreamRaw], s.volumes[hashesStream]
	// Not beyond what the audit has not looked at yet.
	if w.audit == nil && w.rawLast > 0 && s.settled[proto.StreamRaw] >= w.rawLast {
		w.seen.Audited = max(w.seen.Audited, w.hashesLast+1)
	}
	w.rawLast, w.hashesLast = raw.LastSequence, hashes.LastSequence
}

// load reads what was seen last, by this keeper or another one.
func (w *watch) load(ctx context.Context) error {
	subject := proto.BucketSubject(proto.BucketCheckpoints, proto.WatchKey)
	found, err := w.bus.Lookup(ctx, proto.BucketStream(proto.BucketCheckpoints), []string{subject})
	if err != nil {
		return err
	}
	w.seen, w.revision, w.stored = &proto.Watch{}, 0, nil
	if s, there := found[subject]; there {
		if w.seen, err = proto.DecodeWatch(s.Data); err != nil {
			return err
		}
		w.revision, w.stored = s.Sequence, s.Data
	}
	if w.seen.Streams == nil {
		w.seen.Streams = map[string]proto.Watched{}
	}
	return nil
}

// keep stores what was seen, once everything that it says of losses is stored. When another keeper was faster, what
// that one saw is as good.
func (w *watch) keep(ctx context.Context, s *sight) error {
	w.settle(s)
	data, err := w.seen.Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(data, w.stored) {
		if err = store(ctx, w.bus, proto.WatchKey, data, w.revision); err != nil && !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
	w.connection = s.connection
	return nil
}

// store writes one of the keeper's records over a revision; 0: there is none.
func store(ctx context.Context, b *bus.Bus, key string, data []byte, over uint64) error {
	return b.TryBatch(ctx, proto.BucketStream(proto.BucketCheckpoints), []bus.Message{{
		Subject: proto.BucketSubject(proto.BucketCheckpoints, key), Data: data, ExpectEmpty: over == 0, ExpectLast: over,
	}})
}
