package dedup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/faultpoint"
	"defenderiot/proto"
)

// sighting is one delivered row of RAW.
type sighting struct {
	msg      jetstream.Msg
	sequence uint64 // in RAW, the first one of what was put there again
	env      *proto.Envelope
	key      string // subject of the hash's claim
	again    bool   // the server says that it was delivered before; it need not know
	first    bool   // this sequence owns the claim
	released uint64 // sequence of the released claim that it takes over; 0: none
	doubtful bool   // the claim was taken over: the alert may have been sent before
	broken   error  // its claim cannot be read, so nobody can tell whether it is the first
}

// delivery is one message of a batch.
type delivery struct {
	msg  jetstream.Msg
	meta *jetstream.MsgMetadata
}

// read decodes the batch. What is no envelope, or ends whoever reads it, becomes a dead letter; what is of a newer
// version waits in the stream. Neither is among the returned sightings.
func (d *Dedup) read(ctx context.Context, batch []jetstream.Msg) ([]*sighting, error) {
	deliveries := make([]delivery, len(batch))
	for i, m := range batch {
		meta, err := m.Metadata()
		if err != nil {
			return nil, fmt.Errorf("delivery without metadata: %w", err)
		}
		deliveries[i] = delivery{m, meta}
	}
	sound, err := d.sound(ctx, deliveries)
	if err != nil {
		return nil, err
	}
	var envelopes proto.EnvelopeReader
	sightings := make([]*sighting, 0, len(sound))
	for _, m := range sound {
		if s := d.see(ctx, &envelopes, m.msg, m.meta); s != nil {
			sightings = append(sightings, s)
		}
	}
	d.metrics.received.Add(ctx, int64(len(batch)))
	return sightings, nil
}

// see decodes one message; nil for one that is none of the batch's any more.
func (d *Dedup) see(ctx context.Context, envelopes *proto.EnvelopeReader, m jetstream.Msg, meta *jetstream.MsgMetadata) *sighting {
	env, err := decode(envelopes, m.Data())
	switch {
	case errors.Is(err, proto.ErrNewerMajor):
		d.newer.Report(err)
		d.metrics.newer.Add(ctx, 1)
		_ = m.NakWithDelay(newerDelay)
		return nil
	case err != nil:
		d.bury(ctx, m, meta, err)
		return nil
	}
	return &sighting{msg: m, sequence: sequenceOf(m, meta), again: meta.NumDelivered > 1, env: env, key: claimSubject(env, env.Hash)}
}

// sequenceOf is what the message's claim names: its sequence in RAW, or the first one of a dead letter that was put
// there again. So a claim that it made before it failed is still its own.
func sequenceOf(m jetstream.Msg, meta *jetstream.MsgMetadata) uint64 {
	if first := m.Headers()[proto.HeaderRawSequence]; len(first) == 1 {
		if sequence, err := strconv.ParseUint(first[0], 10, 64); err == nil {
			return sequence
		}
	}
	return meta.Sequence.Stream
}

// decode turns a panic into an error: a message must never take the service down, and reading it again
// would only panic again.
func decode(envelopes *proto.EnvelopeReader, data []byte) (env *proto.Envelope, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: reading it panicked: %v", proto.ErrMalformed, r)
		}
	}()
	faultpoint.Crash(faultpoint.DedupReads, data)
	return envelopes.ReadHead(data)
}

// bury writes the dead letter first and settles the delivery after it. When that fails the message waits,
// and its neighbours do not.
func (d *Dedup) bury(ctx context.Context, m jetstream.Msg, meta *jetstream.MsgMetadata, reason error) {
	letter := proto.DeadLetter{
		Stage: proto.StageDedup, Reason: reason.Error(), Attempts: int(meta.NumDelivered),
		First: meta.Timestamp, Last: time.Now(), Stream: proto.StreamRaw, Sequence: meta.Sequence.Stream, Payload: m.Data(),
	}
	if claimed := sequenceOf(m, meta); claimed != letter.Sequence {
		letter.Claim = claimed
	}
	if err := d.bus.DeadLetter(ctx, letter); err != nil {
		d.trouble.Report(err)
		_ = m.NakWithDelay(buryDelay)
		return
	}
	d.poison.Report(fmt.Errorf("RAW sequence %d is in the dead letters: %w", letter.Sequence, reason))
	d.metrics.dead.Add(ctx, 1)
	_ = m.TermWithReason("dead letter: " + reason.Error()) // if it is lost, the same letter is written again
}

// claim decides for each sighting whether it is the first, and returns when every decision rests on a
// stored claim.
func (d *Dedup) claim(ctx context.Context, sightings []*sighting) error {
	stream := proto.BucketStream(proto.BucketHashes)
	for attempt := 0; len(sightings) > 0; attempt++ {
		suspects := sightings
		if attempt == 0 {
			suspects = d.recent.suspects(sightings)
		}
		found, err := d.bus.Lookup(ctx, stream, keys(suspects))
		if err != nil {
			return err
		}
		free := judge(sightings, found)
		if len(free) == 0 {
			return nil
		}
		err = d.bus.TryBatch(ctx, stream, claims(free))
		switch {
		case err == nil:
			// Stored: those sequences own their claims, and every other sighting of the same hashes is a
			// duplicate; the ones whose claims were found are judged already.
			for _, s := range free {
				s.first = true
			}
			d.recent.note(free)
			return nil
		case errors.Is(err, bus.ErrFull) || errors.Is(err, bus.ErrTooLarge):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			// A conflict (another worker was faster) or an unknown outcome: look at all of them.
			d.recent.surprised()
			if !errors.Is(err, bus.ErrConflict) {
				d.trouble.Report(fmt.Errorf("claim: %w", err))
			}
			pause(ctx, time.Duration(min(attempt, 20))*50*time.Millisecond)
		}
	}
	return nil
}

// claimSubject is where the claim of one of the envelope's hashes is stored.
func claimSubject(env *proto.Envelope, hash string) string {
	return proto.BucketSubject(proto.BucketHashes, proto.HashKey(env.Source, env.Generation, hash))
}

func keys(sightings []*sighting) []string {
	subjects := make([]string, 0, len(sightings))
	seen := make(map[string]bool, len(sightings))
	add := func(key string) {
		if !seen[key] {
			seen[key] = true
			subjects = append(subjects, key)
		}
	}
	for _, s := range sightings {
		add(s.key)
		for _, other := range s.env.OtherHashes {
			add(claimSubject(s.env, other))
		}
	}
	return subjects
}

// judge marks who owns the claims that were found and returns one sighting for each hash that is free, or whose
// claim was released: the one with the lowest sequence.
func judge(open []*sighting, found map[string]bus.Stored) (free []*sighting) {
	candidate := make(map[string]int, len(open))
	for _, s := range open {
		if knownUnderAnotherHash(s, found) {
			s.env.ClaimOnly = true // the same on every redelivery, since nobody claims the other hash anew
		}
		stored, taken := found[s.key]
		if taken {
			claim, err := proto.DecodeClaim(stored.Data)
			if err != nil {
				s.broken = fmt.Errorf("%s: %w", s.key, err)
				continue
			}
			if !claim.Released {
				s.first, s.doubtful = claim.RawSequence == s.sequence, claim.Again
				continue
			}
			s.released, s.doubtful = stored.Sequence, true
		} else {
			s.released, s.doubtful = 0, false
		}
		i, twice := candidate[s.key]
		switch {
		case !twice:
			candidate[s.key] = len(free)
			free = append(free, s)
		case s.sequence < free[i].sequence:
			free[i] = s
		}
	}
	return free
}

// separate buries the sightings whose claims cannot be read and returns the others.
func (d *Dedup) separate(ctx context.Context, sightings []*sighting) []*sighting {
	sound := sightings[:0]
	for _, s := range sightings {
		if s.broken == nil {
			sound = append(sound, s)
			continue
		}
		if meta, err := s.msg.Metadata(); err == nil {
			d.bury(ctx, s.msg, meta, s.broken)
		}
	}
	return sound
}

func knownUnderAnotherHash(s *sighting, found map[string]bus.Stored) bool {
	for _, other := range s.env.OtherHashes {
		if stored, ok := found[claimSubject(s.env, other)]; ok {
			if claim, err := proto.DecodeClaim(stored.Data); err != nil || !claim.Released {
				return true
			}
		}
	}
	return false
}

func claims(free []*sighting) []bus.Message {
	messages := make([]bus.Message, len(free))
	for i, s := range free {
		messages[i] = bus.Message{
			Subject: s.key, Data: proto.Claim{RawSequence: s.sequence, Silent: s.env.ClaimOnly, Again: s.doubtful}.Encode(),
			ExpectEmpty: s.released == 0, ExpectLast: s.released,
		}
	}
	return messages
}
