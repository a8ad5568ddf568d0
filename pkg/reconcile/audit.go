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

// Audited is what an audit has found.
type Audited struct {
	// Next is the sequence of the hashes bucket at which the next one may begin: everything before it is in order, or
	// was released. It stays where an alert is still on its way.
	Next     uint64
	Released int
	// Waiting are claims whose alerts are in RAW.
	Waiting int
}

// Audit reads the claims from a sequence of the hashes bucket on, and releases those whose alerts are nowhere: not in
// UNIQUE, not in RAW on their way there, not in the dead letters. Claims that were made before since are left alone:
// UNIQUE may have purged what belongs to them. It asks nothing of Azure. Doing it again changes nothing; several at
// once do no harm. Errors are the bus's; what was released until then stays released.
func Audit(ctx context.Context, b *bus.Bus, from uint64, since time.Time) (a Audited, err error) {
	hashes := proto.BucketStream(proto.BucketHashes)
	if first, err := b.SequenceAt(ctx, hashes, since); err != nil {
		return a, err
	} else if !since.IsZero() {
		from = max(from, first)
	}
	a.Next = from
	var elsewhere places
	for next, settled := from, true; ; {
		messages, err := b.Read(ctx, hashes, next)
		if err != nil {
			return a, err
		}
		if len(messages) == 0 {
			return a, nil
		}
		next = messages[len(messages)-1].Sequence + 1
		for part := range slices.Chunk(messages, Page) {
			released, waiting, err := auditPage(ctx, b, &elsewhere, part)
			a.Released, a.Waiting = a.Released+released, a.Waiting+waiting
			if err != nil {
				return a, err
			}
			settled = settled && waiting == 0
			if settled {
				a.Next = part[len(part)-1].Sequence + 1
			}
		}
	}
}

func auditPage(ctx context.Context, b *bus.Bus, elsewhere *places, messages []*jetstream.RawStreamMsg) (released, waiting int, err error) {
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
		return 0, 0, err
	}
	consumer, err := b.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return 0, 0, fmt.Errorf("consumer of dedup: %w", err)
	}
	floor := consumer.CachedInfo().AckFloor.Stream
	// Before RAW, as after it: a letter goes back into RAW.
	if err := elsewhere.readLetters(ctx, b); err != nil {
		return 0, 0, err
	}
	for unique, c := range open {
		on, err := elsewhere.onItsWay(ctx, b, floor, c)
		if err != nil {
			return 0, 0, err
		}
		if on {
			waiting++
			delete(open, unique)
		}
	}
	// What has moved on since is there now: dedup stores in UNIQUE, or in DEAD, before it acknowledges.
	if err := dropStored(ctx, b, open); err != nil || len(open) == 0 {
		return 0, waiting, err
	}
	if err := elsewhere.drop(ctx, b, open); err != nil {
		return 0, waiting, err
	}
	lost := make([]heldClaim, 0, len(open))
	for _, c := range open {
		lost = append(lost, c)
	}
	released, err = release(ctx, b, lost)
	return released, waiting, err
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
// has; what is claimed is not sent again. It returns where they stood, by the token of the source. Doing it again
// makes the fetchers begin again. A record that cannot be read is an error, and the others are rewound.
func Rewind(ctx context.Context, b *bus.Bus) (map[string]time.Time, error) {
	stream := proto.BucketStream(proto.BucketCheckpoints)
	prefix := proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix)
	stood := map[string]time.Time{}
	var errs []error
	for range 10 { // against fetchers that move them at the same time
		records, err := b.Lookup(ctx, stream, []string{prefix + ">"})
		if err != nil {
			return nil, fmt.Errorf("records of the sources: %w", err)
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
	return stood, errors.Join(errs...)
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
