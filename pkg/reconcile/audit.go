package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// heldClaim is a claim as the hashes bucket holds it.
type heldClaim struct {
	subject  string
	sequence uint64 // in the bucket
	raw      uint64
}

const (
	// audited is how many claims one call of Audit looks at, about: it ends after a whole answer of the bus.
	audited = 20_000
	// auditFor is after how long a call looks at no more pages: each claim whose alert is missing costs requests.
	auditFor = 20 * time.Second
)

// Audited is what one call of Audit has found.
type Audited struct {
	// Next is the sequence of the hashes bucket at which the next call goes on, also after an error.
	Next uint64
	// Done: the claims were read to their end.
	Done bool
	// Lost are claims whose alerts are nowhere, Released those of them that were released.
	Lost, Released int
	// Waiting is the first claim whose alert is in RAW on its way, 0 where there is none: everything before it is in
	// order, or was released.
	Waiting uint64
}

// Audit looks at the claims from a sequence of the hashes bucket on, at about 20,000 or for about 20 s, and finds those
// whose alerts are nowhere: not in UNIQUE, not in RAW on their way there, not in the dead letters. With free it releases
// them. Claims that were made before since are left alone: UNIQUE may have purged what belongs to them. It asks nothing
// of Azure. Doing it again changes nothing; several at once do no harm. Errors are the bus's; what was released until
// then stays released, and counts.
func Audit(ctx context.Context, b *bus.Bus, from uint64, since time.Time, free bool) (a Audited, err error) {
	a.Next = from
	hashes := proto.BucketStream(proto.BucketHashes)
	if first, err := b.SequenceAt(ctx, hashes, since); err != nil {
		return a, err
	} else if !since.IsZero() {
		a.Next = max(from, first)
	}
	var elsewhere places
	end, err := b.Volume(ctx, hashes)
	if err != nil {
		return a, err
	}
	begun := time.Now()
	for read := 0; read < audited && time.Since(begun) <= auditFor; {
		messages, err := b.Read(ctx, hashes, a.Next)
		if err != nil {
			return a, err
		}
		if len(messages) == 0 && a.Next > end.LastSequence {
			a.Done = true
			return a, nil
		}
		if len(messages) == 0 { // what cannot be read ends an answer; there are claims behind it
			a.Next++
			read++
		}
		read += len(messages)
		for part := range slices.Chunk(messages, Page) {
			if err := a.page(ctx, b, &elsewhere, part, free); err != nil {
				return a, err
			}
			a.Next = part[len(part)-1].Sequence + 1
			if time.Since(begun) > auditFor {
				return a, nil
			}
		}
	}
	return a, nil
}

func (a *Audited) page(ctx context.Context, b *bus.Bus, elsewhere *places, messages []*jetstream.RawStreamMsg, free bool) error {
	open := make(map[string]heldClaim, len(messages)) // by the alert's subject in UNIQUE
	for _, m := range messages {
		claim, err := proto.DecodeClaim(m.Data)
		if err != nil || claim.Silent || claim.Released {
			continue // markers among them
		}
		key := strings.TrimPrefix(m.Subject, proto.BucketSubject(proto.BucketHashes, ""))
		open[proto.UniqueSubjectOf(key)] = heldClaim{subject: m.Subject, sequence: m.Sequence, raw: claim.RawSequence}
	}
	if err := dropStored(ctx, b, open); err != nil || len(open) == 0 {
		return err
	}
	consumer, err := b.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return fmt.Errorf("consumer of dedup: %w", err)
	}
	floor := consumer.CachedInfo().AckFloor.Stream
	// Before RAW, as after it: a letter goes back into RAW.
	if err := elsewhere.readLetters(ctx, b); err != nil {
		return err
	}
	for unique, c := range open {
		on, err := elsewhere.onItsWay(ctx, b, floor, c)
		if err != nil {
			return err
		}
		if on {
			a.Waiting = Earlier(a.Waiting, c.sequence)
			delete(open, unique)
		}
	}
	// What has moved on since is there now: dedup stores in UNIQUE, or in DEAD, before it acknowledges.
	if err := dropStored(ctx, b, open); err != nil || len(open) == 0 {
		return err
	}
	if err := elsewhere.drop(ctx, b, open); err != nil {
		return err
	}
	a.Lost += len(open)
	if !free {
		return nil
	}
	lost := make([]heldClaim, 0, len(open))
	for _, c := range open {
		lost = append(lost, c)
	}
	released, err := release(ctx, b, lost)
	a.Released += released
	return err
}

// Earlier is the lower of two sequences of which 0 says that there is none.
func Earlier(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// dropStored takes out what UNIQUE has, as far as a look-up finds it.
func dropStored(ctx context.Context, b *bus.Bus, open map[string]heldClaim) error {
	subjects := make([]string, 0, len(open))
	for unique := range open {
		subjects = append(subjects, unique)
	}
	found, err := b.Lookup(ctx, proto.StreamUnique, subjects)
	if err != nil {
		return fmt.Errorf("look up UNIQUE: %w", err)
	}
	for unique := range found {
		delete(open, unique)
	}
	return nil
}

// release marks claims as released. One that somebody has changed meanwhile is left to him.
func release(ctx context.Context, b *bus.Bus, claims []heldClaim) (released int, err error) {
	stream := proto.BucketStream(proto.BucketHashes)
	messages := make([]bus.Message, len(claims))
	for i, c := range claims {
		messages[i] = bus.Message{Subject: c.subject, Data: proto.Claim{RawSequence: c.raw, Released: true}.Encode(), ExpectLast: c.sequence}
	}
	if len(messages) > 1 {
		if err := b.TryBatch(ctx, stream, messages); err == nil {
			return len(messages), nil
		}
	}
	for _, m := range messages {
		err := b.TryBatch(ctx, stream, []bus.Message{m})
		switch {
		case err == nil:
			released++
		case !errors.Is(err, bus.ErrConflict):
			return released, fmt.Errorf("release claims: %w", err)
		}
	}
	return released, nil
}

// Unclaimed counts the released claims from a sequence of the hashes bucket on that nobody has taken over, and names
// the hashes of the first most of them.
func Unclaimed(ctx context.Context, b *bus.Bus, from uint64, most int) (count uint64, hashes []string, err error) {
	err = readAll(ctx, b, proto.BucketStream(proto.BucketHashes), from, func(_ uint64, m *jetstream.RawStreamMsg) error {
		if claim, err := proto.DecodeClaim(m.Data); err != nil || !claim.Released {
			return nil //nolint:nilerr // not ours
		}
		if count++; len(hashes) < most {
			hashes = append(hashes, m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		}
		return nil
	})
	return count, hashes, err
}

// Rewind moves the position of every source back to its floor, so that its fetcher reads everything again that Azure
// has; what is claimed is not sent again. It notes in stood where they stood, by the token of the source, and leaves
// alone what is noted there: doing it again would make the fetchers begin again. A record that cannot be read is an
// error, and the others are rewound.
func Rewind(ctx context.Context, b *bus.Bus, stood map[string]time.Time) error {
	stream := proto.BucketStream(proto.BucketCheckpoints)
	prefix := proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix)
	var errs []error
	for range 10 { // against fetchers that move them at the same time
		records, err := b.Lookup(ctx, stream, []string{prefix + ">"})
		if err != nil {
			return fmt.Errorf("records of the sources: %w", err)
		}
		errs = errs[:0]
		for subject, s := range records {
			token := strings.TrimPrefix(subject, prefix)
			if _, done := stood[token]; done {
				continue
			}
			if at, err := rewind(ctx, b, subject, s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", subject, err))
			} else {
				stood[token] = at
			}
		}
		if len(errs) == 0 {
			break
		}
	}
	return errors.Join(errs...)
}

func rewind(ctx context.Context, b *bus.Bus, subject string, s bus.Stored) (stood time.Time, err error) {
	c, err := proto.DecodeCheckpoint(s.Data)
	if err != nil {
		return stood, err
	}
	stood = c.LastEventTime
	c.LastEventTime, c.LastIDs = c.Floor, nil
	data, err := c.Encode()
	if err != nil {
		return stood, err
	}
	// Also where the position stands there already: its fetcher has to forget what it has published.
	return stood, b.TryBatch(ctx, proto.BucketStream(proto.BucketCheckpoints), []bus.Message{{Subject: subject, Data: data, ExpectLast: s.Sequence}})
}
