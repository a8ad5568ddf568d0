package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

const (
	// scrubbed is how many messages of a stream one round reads through.
	scrubbed = 20_000
	// asked is how many single messages of a stream one round asks for, for each of the reasons to do so.
	asked = 2000
	// maxHoles bounds what is kept of messages that cannot be read; more of them are noticed again after a restart.
	maxHoles = 1000
)

// scrub is how far a stream has been read through. A message that cannot be read goes through
//
//	passed over by a read, the leader has none ──> doubt ── the same a round later ──> hole: lost, given up
//	                                                 └── it reads ──> none             └── it reads ──> none
//
// since a server says of what it cannot read just now, with no file left to open, what it says of what is damaged.
type scrub struct {
	next  uint64
	start uint64 // up to here everything is read, settled meanwhile or not
	last  uint64 // the stream's end at the last round

	doubts proto.Sequences
	again  uint64 // the hole that was asked for last
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
	for _, r := range w.seen.Streams[name].Holes {
		at.doubts.RemoveRange(r) // they are stored
	}
	if err := w.mend(ctx, name, at); err != nil {
		return 0, err
	}
	if at.doubts, err = w.unreadable(ctx, name, &at.doubts); err != nil {
		return 0, err
	}
	holes := at.doubts.Clone()
	if holes.Len() == 0 {
		return 0, w.read(ctx, name, at, until)
	}
	seen := w.seen.Streams[name]
	if len(seen.Holes)+len(holes.Ranges()) <= maxHoles {
		seen.Holes = append(seen.Holes, holes.Ranges()...)
		w.seen.Streams[name] = seen
	} else {
		at.doubts = proto.Sequences{} // said once
	}
	return uint64(holes.Len()), nil
}

// read goes on to until, as far as one round can. What it passes over becomes a doubt, if the leader has none either.
func (w *watch) read(ctx context.Context, name string, at *scrub, until uint64) error {
	var passed proto.Sequences
	next := at.next
	for read, single := 0, 0; next <= until && read < scrubbed && single < asked; {
		messages, err := w.bus.Read(ctx, name, next)
		if err != nil {
			return err
		}
		read += len(messages)
		if len(messages) == 0 {
			// Says nothing about those behind it: an answer ends where a block cannot be read.
			passed.AddRange(proto.Range{First: next, Last: next})
			next++
			single++
		}
		for _, m := range messages {
			if next <= min(m.Sequence-1, until) {
				passed.AddRange(proto.Range{First: next, Last: min(m.Sequence-1, until)})
			}
			next = m.Sequence + 1
		}
	}
	if passed.Len() > 0 {
		deleted, err := w.bus.Deleted(ctx, name) // these are the gap's
		if err != nil {
			return err
		}
		for _, r := range append(deleted.Ranges(), w.seen.Streams[name].Holes...) {
			passed.RemoveRange(r)
		}
		if at.doubts, err = w.unreadable(ctx, name, &passed); err != nil {
			return err
		}
		if passed.Len() > asked {
			// What is behind the first ones is read again.
			for left := uint64(asked); left > 0; {
				r := passed.Ranges()[0]
				n := min(r.Last-r.First+1, left)
				passed.RemoveRange(proto.Range{First: r.First, Last: r.First + n - 1})
				next, left = r.First+n, left-n
			}
		}
	}
	at.next = min(next, until+1)
	return nil
}

// unreadable returns which of the first sequences the leader has no message of, without what was purged meanwhile.
func (w *watch) unreadable(ctx context.Context, name string, sequences *proto.Sequences) (holes proto.Sequences, err error) {
	left := asked
	for _, r := range sequences.Ranges() {
		for sequence := r.First; sequence <= r.Last && left > 0; sequence++ {
			left--
			if gone, err := w.gone(ctx, name, sequence); err != nil {
				return proto.Sequences{}, err
			} else if gone {
				holes.AddRange(proto.Range{First: sequence, Last: sequence})
			}
		}
	}
	if holes.Len() > 0 {
		after, err := w.bus.Volume(ctx, name)
		if err != nil {
			return proto.Sequences{}, err
		}
		holes.RemoveRange(proto.Range{First: 0, Last: after.FirstSequence - min(after.FirstSequence, 1)})
	}
	return holes, nil
}

// gone reports whether the leader says that it has no such message.
func (w *watch) gone(ctx context.Context, name string, sequence uint64) (bool, error) {
	_, err := w.bus.Get(ctx, name, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	return false, err
}

// mend forgets the holes that can be read again, as many of them as one round can ask for.
func (w *watch) mend(ctx context.Context, name string, at *scrub) error {
	seen := w.seen.Streams[name]
	var holes proto.Sequences
	for _, r := range seen.Holes {
		holes.AddRange(r)
	}
	known, left := holes.Clone(), asked
	for _, r := range known.Ranges() {
		for sequence := max(r.First, at.again+1); sequence <= r.Last && left > 0; sequence++ {
			left--
			gone, err := w.gone(ctx, name, sequence)
			if err != nil {
				return err
			}
			if at.again = sequence; !gone {
				holes.Remove([]uint64{sequence})
			}
		}
	}
	if left > 0 {
		at.again = 0 // from the first one on
	}
	if holes.Len() < known.Len() {
		seen.Holes = holes.Ranges()
		w.seen.Streams[name] = seen
	}
	return nil
}

// giveUp acknowledges what cannot be read in the place of who would have got it: the server tries to deliver such a
// message again for ever, and everything behind it would never count as settled. Each one is asked for once more before.
func (w *watch) giveUp(ctx context.Context, name string, settled uint64, consumers []string) error {
	left := asked
	for _, r := range w.seen.Streams[name].Holes {
		for sequence := max(r.First, settled+1); sequence <= r.Last && left > 0; sequence++ {
			left--
			gone, err := w.gone(ctx, name, sequence)
			if err != nil {
				return err
			}
			if !gone {
				continue
			}
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

// purgeable is up to where a stream may be purged: what waited at the start is read through first, and what is in doubt
// is asked for again.
func (w *watch) purgeable(name string, floor uint64) uint64 {
	at := w.scrubs[name]
	if at == nil {
		return floor
	}
	if doubts := at.doubts.Ranges(); len(doubts) > 0 {
		floor = min(floor, doubts[0].First-1)
	}
	if at.next > at.start {
		return floor
	}
	return min(floor, at.next-1)
}
