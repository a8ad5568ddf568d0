package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"github.com/synadia-io/orbit.go/natsext"
)

// maxLookup is how many subjects one request names; the server answers at most 1,024.
const maxLookup = 1000

// Stored is the newest message on a subject.
type Stored struct {
	Sequence uint64
	Time     time.Time // when it was stored
	Data     []byte
}

// Lookup returns the newest message on each of the subjects that has one; a subject may hold wildcards. It
// is one request for each 1,000 subjects, as long as nothing is damaged and the answer fits into 64 MiB; else it asks
// for halves. On a replicated stream any replica may answer, so what is missing here may exist: a look-up saves work,
// it never decides. A message that the server cannot read counts as not there, and is reported in the log; with a
// wildcard, where nobody could say what is left out, it is [ErrDamaged]. Safe for concurrent use.
func (b *Bus) Lookup(ctx context.Context, stream string, subjects []string) (map[string]Stored, error) {
	found := make(map[string]Stored)
	for len(subjects) > 0 {
		n := min(maxLookup, len(subjects))
		if err := b.lookupParts(ctx, stream, subjects[:n], found, b.reportDamage); err != nil {
			return nil, fmt.Errorf("look up %d subjects in %s: %w", n, stream, err)
		}
		subjects = subjects[n:]
	}
	return found, nil
}

// LookupAll is [Bus.Lookup] of all subjects that match filter for who can go on without the messages that the server
// cannot read: it names the subjects whose newest message is such a one, in no order, and logs nothing about them. Where
// there are some it makes more requests: for the subjects' names, and some for each of them. Safe for concurrent use.
func (b *Bus) LookupAll(ctx context.Context, stream, filter string) (found map[string]Stored, damaged []string, err error) {
	found, err = b.Lookup(ctx, stream, []string{filter})
	if !errors.Is(err, ErrDamaged) {
		return found, nil, err
	}
	subjects, err := b.subjects(ctx, stream, filter)
	if err != nil {
		return nil, nil, fmt.Errorf("look up %s in %s: %w", filter, stream, err)
	}
	found = make(map[string]Stored, len(subjects))
	for some := range slices.Chunk(subjects, maxLookup) {
		if err := b.lookupParts(ctx, stream, some, found, func(subject string) { damaged = append(damaged, subject) }); err != nil {
			return nil, nil, fmt.Errorf("look up %d subjects in %s: %w", len(some), stream, err)
		}
	}
	return found, damaged, nil
}

// subjects names those that match filter. The server has them in memory and reads no message for it.
func (b *Bus) subjects(ctx context.Context, stream, filter string) (names []string, err error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+stream)...)
	defer func() { err = explain(err) }()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(info.State.Subjects)), nil
}

func (b *Bus) reportDamage(subject string) {
	b.damaged.Report(fmt.Errorf("%w: the one on %s; it counts as not there", ErrDamaged, subject))
}

// ErrDamaged: the server has a message that it cannot read.
var ErrDamaged = errors.New("a stored message cannot be read")

// lookupParts asks for subjects, and for halves of them where the answer breaks off. damaged gets those that cannot be read.
func (b *Bus) lookupParts(ctx context.Context, stream string, subjects []string, found map[string]Stored, damaged func(subject string)) error {
	whole, err := b.lookup(ctx, stream, subjects, found)
	if err != nil || whole {
		return err
	}
	if len(subjects) == 1 {
		if strings.ContainsAny(subjects[0], "*>") {
			return fmt.Errorf("%w: %s", ErrDamaged, subjects[0])
		}
		damaged(subjects[0])
		return nil
	}
	half := len(subjects) / 2
	if err := b.lookupParts(ctx, stream, subjects[:half], found, damaged); err != nil {
		return err
	}
	return b.lookupParts(ctx, stream, subjects[half:], found, damaged)
}

// What ends the answer to a look-up (nats-server, stream.go, getDirectMulti). Message Not Found stands for one that
// cannot be read: a subject without messages is only left out.
const (
	noContent, notFound = "204", "404"
	noResults           = "No Results"
	numPending          = "Nats-Num-Pending"
)

// lookup makes one request. whole is false when the answer broke off, by a damaged message or by its size.
func (b *Bus) lookup(ctx context.Context, stream string, subjects []string, found map[string]Stored) (whole bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	subject := api("DIRECT.GET." + stream)[0]
	ctx, explain := b.guard(ctx, subject)
	defer func() { err = explain(err) }()
	request, err := json.Marshal(map[string][]string{"multi_last": subjects})
	if err != nil {
		return false, err
	}
	answers, err := natsext.RequestMany(ctx, b.conn, subject, request)
	if err != nil {
		return false, err
	}
	for m, err := range answers {
		if err != nil {
			return false, err
		}
		switch status := m.Header.Get("Status"); {
		case status == noContent:
			return m.Header.Get(numPending) == "0", nil
		case status == notFound:
			return m.Header.Get("Description") == noResults, nil
		case status != "":
			return false, fmt.Errorf("%s %s", status, m.Header.Get("Description"))
		}
		s := Stored{Data: m.Data}
		if s.Sequence, err = strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
			return false, fmt.Errorf("an answer without a sequence: %w", err)
		}
		if s.Time, err = time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer)); err != nil {
			return false, fmt.Errorf("an answer without a time: %w", err)
		}
		if op := m.Header.Get("KV-Operation"); op != "DEL" && op != "PURGE" {
			found[m.Header.Get(jetstream.SubjectHeader)] = s
		}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return false, errors.New("the answer has no end")
}

// SequenceAt returns the first sequence of stream that was stored at or after at; where there is none it
// is the sequence that the next message gets.
func (b *Bus) SequenceAt(ctx context.Context, stream string, at time.Time) (sequence uint64, err error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+stream, "DIRECT.GET."+stream)...)
	defer func() { err = explain(err) }()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	state := s.CachedInfo().State
	if state.Msgs == 0 || state.LastTime.Before(at) {
		return state.LastSeq + 1, nil
	}
	if !state.FirstTime.Before(at) {
		return state.FirstSeq, nil
	}
	messages, err := jetstreamext.GetBatch(ctx, b.js, stream, 1, jetstreamext.GetBatchStartTime(at))
	if err != nil {
		return 0, fmt.Errorf("first message of %s since %s: %w", stream, at, err)
	}
	for m, err := range messages {
		if err != nil {
			return 0, fmt.Errorf("first message of %s since %s: %w", stream, at, err)
		}
		return m.Sequence, nil
	}
	return 0, fmt.Errorf("first message of %s since %s: no answer", stream, at)
}

// maxReadBytes ends the answer to one Read; the message that reaches it is still in it.
const maxReadBytes = 8 << 20

// Read returns messages of stream from sequence first on, in order: at most 1,000 and not much more than 8 MiB. None
// when there are no more, and also where the server cannot read what comes next; what it passes over it does not say. On
// a stream with copies any of them may answer, so what is not there may exist: [Bus.Get] tells. It changes nothing on the
// server. Safe for concurrent use.
func (b *Bus) Read(ctx context.Context, stream string, first uint64) ([]*jetstream.RawStreamMsg, error) {
	return b.readMatching(ctx, stream, first)
}

// ReadMatching is [Bus.Read] of the messages on subjects that match filter.
func (b *Bus) ReadMatching(ctx context.Context, stream, filter string, first uint64) ([]*jetstream.RawStreamMsg, error) {
	return b.readMatching(ctx, stream, first, jetstreamext.GetBatchSubject(filter))
}

func (b *Bus) readMatching(ctx context.Context, stream string, first uint64, filter ...jetstreamext.GetBatchOpt) ([]*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	messages, err := jetstreamext.GetBatch(ctx, b.js, stream, maxLookup,
		append(filter, jetstreamext.GetBatchSeq(max(first, 1)), jetstreamext.GetBatchMaxBytes(maxReadBytes))...)
	if err != nil {
		return nil, fmt.Errorf("read %s from sequence %d on: %w", stream, first, err)
	}
	var out []*jetstream.RawStreamMsg
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) && len(out) == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s from sequence %d on: %w", stream, first, err)
		}
		out = append(out, m)
	}
	return out, ctx.Err()
}

// Purge removes every message on subjects that match filter.
func (b *Bus) Purge(ctx context.Context, stream, filter string) error {
	return b.purge(ctx, stream, jetstream.WithPurgeSubject(filter))
}

// purgeSteps bounds how far PurgeBelow looks for a message that can be read.
const purgeSteps = 100

// PurgeBelow removes every message with a sequence below sequence. Doing it again changes nothing. Where the message at
// sequence cannot be read, it stops some sequences before that, or does nothing: the server never answers again when what
// it keeps begins with one (nats-server v2.15.2, filestore.go: compactLocked panics under its lock).
func (b *Bus) PurgeBelow(ctx context.Context, stream string, sequence uint64) error {
	s, err := b.Stream(ctx, stream)
	if err != nil {
		return err
	}
	state := s.CachedInfo().State
	for step := 0; sequence <= state.LastSeq; sequence-- {
		_, err := s.GetMsg(ctx, sequence)
		if err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return fmt.Errorf("read %s at sequence %d: %w", stream, sequence, err)
		}
		if step++; step > purgeSteps || sequence <= state.FirstSeq {
			return nil
		}
	}
	return b.purge(ctx, stream, jetstream.WithPurgeSequence(sequence))
}

func (b *Bus) purge(ctx context.Context, stream string, opts ...jetstream.StreamPurgeOpt) (err error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+stream, "STREAM.PURGE."+stream)...)
	defer func() { err = explain(err) }()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	if err := s.Purge(ctx, opts...); err != nil {
		return fmt.Errorf("purge %s: %w", stream, err)
	}
	return nil
}
