package dedup

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// watch notices what the bus has lost of what it had acknowledged. Three things tell:
//
//   - the stream's own figures: RAW and UNIQUE are purged from the front only, up to what is settled, so a gap inside
//     or a front that has moved further is a loss, and so is an end that has gone back;
//   - reading: what waits for longer than a round, and what waited when this process or the server began, is read
//     through once, and the claims whole, since the server passes over what it cannot read without a word;
//   - the claims: each one's alert is in UNIQUE or on its way.
//
// On a bus with copies only the first of these: servers repair their copies from each other, and any copy may answer a
// read, also one that lags behind. What the leader's state says there is reported, and nothing is done about it.
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
	doubted    map[string]bool // streams with copies whose figures told of a loss at the last round
	margin     time.Duration   // see proto.Watch.UniqueSince
	audit      *audit          // nil: none is under way
}

// sinceMargin is how much later than UNIQUE's first message claims are looked at: clocks of servers differ.
const sinceMargin = time.Hour

// newWatch makes the watch of a bus whose UNIQUE keeps what is confirmed for that long.
func newWatch(b *bus.Bus, retention time.Duration) *watch {
	return &watch{bus: b, scrubs: map[string]*scrub{}, doubted: map[string]bool{}, margin: min(sinceMargin, retention/2)}
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

// copies reports whether the streams have copies on other servers.
func (s *sight) copies() bool {
	for _, v := range s.volumes {
		if v.Replicas > 1 {
			return true
		}
	}
	return false
}

var hashesStream = proto.BucketStream(proto.BucketHashes)

// look compares the streams with what was seen of them last. It returns how many messages each has lost since, of those
// that can be counted, and notes what it sees; keep stores that. What is compared with must be loaded before s was taken:
// another keeper may have gone on since, and its record would tell of what s does not have.
func (w *watch) look(ctx context.Context, s *sight) (lost map[string]uint64, err error) {
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
		errs = append(errs, err)
		if v.Replicas <= 1 {
			holes, err := w.scrub(ctx, name, v, s, before)
			errs = append(errs, err)
			n += holes
		} else {
			delete(w.scrubs, name) // of when there was one copy
		}
		if n > 0 {
			lost[name] = n
		}
	}
	if unique, known := s.volumes[proto.StreamUnique]; known && unique.Messages > 0 && unique.FirstSequence <= s.settled[proto.StreamUnique]+1 {
		w.seen.UniqueSince = time.Time{}
		if unique.FirstSequence > 1 {
			w.seen.UniqueSince = unique.FirstTime.Add(w.margin)
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
		if r.Last >= v.FirstSequence && v.Replicas <= 1 {
			is.Holes = append(is.Holes, r)
		}
	}
	if is.LastTime, err = w.storedAt(ctx, name, v.LastSequence); err != nil {
		return 0, err
	}
	switch {
	case v.LastSequence < was.Last:
		lost += was.Last - v.LastSequence
	case (s.fresh || w.doubted[name]) && known && !was.LastTime.IsZero() && was.Last >= v.FirstSequence && name != hashesStream:
		at, err := w.storedAt(ctx, name, was.Last)
		if err != nil {
			return 0, err
		}
		if !at.IsZero() && !at.Equal(was.LastTime) { // one that cannot be read is the scrub's
			lost++ // that one at least
		}
	}
	// Claims that are replaced leave gaps, too; while nobody works there are none.
	if is.Gap > was.Gap && (name != hashesStream || (s.fresh || w.doubted[name]) && known) {
		lost = max(lost, is.Gap-was.Gap)
	}
	if front := v.FirstSequence - min(v.FirstSequence, 1); name != hashesStream && known && front > is.Settled {
		lost += front - is.Settled
		is.Settled = front // said once
	}
	if v.Replicas > 1 && lost > 0 && !w.doubted[name] {
		// A new leader may not have applied yet what it has: compared once more with what was.
		w.doubted[name] = true
		return 0, nil
	}
	delete(w.doubted, name)
	w.seen.Streams[name] = is
	return lost, nil
}

// storedAt is when the message with that sequence was stored, the zero time where there is none.
func (w *watch) storedAt(ctx context.Context, name string, sequence uint64) (time.Time, error) {
	m, err := w.bus.Get(ctx, name, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return m.Time, nil
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
