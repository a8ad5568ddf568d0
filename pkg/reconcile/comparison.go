package reconcile

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// maxOpen bounds the alerts that are neither in UNIQUE nor claimed silently while Azure is read: about 100 bytes of
// memory each, and their ids up to [MaxNamed].
const maxOpen = 2_000_000

// MaxNamed is how many missing alerts a report names.
const MaxNamed = 100_000

// Alert is one that Azure has.
type Alert struct {
	Hash  string
	ID    string // may be empty, where it must not be shown
	Start time.Time
}

// hash is an alert's, decoded.
type hash [16]byte

// open is an alert whose delivery is not settled by UNIQUE.
type open struct {
	start time.Time
	id    string // of the first MaxNamed
	// claim is the sequence of its claim, 0 without one; stored is when that was made, raw the sequence that made it.
	claim, raw uint64
	stored     time.Time
}

// Comparison takes the alerts of one source as they are read from Azure. Call Add with each page, then Settle once.
// It is not safe for concurrent use. It changes nothing on the bus.
type Comparison struct {
	bus         *bus.Bus
	source      proto.Source
	generations []uint64 // newest first

	found  proto.Sequences // in UNIQUE
	open   map[hash]open
	silent map[hash]struct{}
	named  int
	first  time.Time // of UNIQUE's oldest message; zero: it is empty
}

// New begins a comparison. current is the source's generation, replaced those before it.
func New(ctx context.Context, b *bus.Bus, source proto.Source, current uint64, replaced []proto.ReplacedGeneration) (*Comparison, error) {
	stream, err := b.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return nil, fmt.Errorf("stream UNIQUE: %w", err)
	}
	c := &Comparison{bus: b, source: source, generations: []uint64{current}, open: map[hash]open{}, silent: map[hash]struct{}{}}
	if state := stream.CachedInfo().State; state.Msgs > 0 {
		c.first = state.FirstTime
	}
	for i := len(replaced) - 1; i >= 0; i-- {
		c.generations = append(c.generations, replaced[i].Generation)
	}
	return c, nil
}

// Add takes alerts, at most [Page] at a time; one that was added before changes nothing. Errors are the bus's; after
// one the comparison is of no use.
func (c *Comparison) Add(ctx context.Context, alerts []Alert) error {
	rest, err := c.stored(ctx, alerts)
	if err != nil || len(rest) == 0 {
		return err
	}
	return c.note(ctx, rest)
}

// stored leaves out the alerts that UNIQUE has, under whatever generation, the newest first.
func (c *Comparison) stored(ctx context.Context, alerts []Alert) ([]Alert, error) {
	for _, generation := range c.generations {
		if len(alerts) == 0 {
			break
		}
		subjects := make([]string, len(alerts))
		for i, a := range alerts {
			subjects[i] = proto.UniqueSubject(c.source, generation, a.Hash)
		}
		stored, err := c.bus.Lookup(ctx, proto.StreamUnique, subjects)
		if err != nil {
			return nil, fmt.Errorf("look up UNIQUE: %w", err)
		}
		var sequences []uint64
		var rest []Alert
		for i, a := range alerts {
			m, ok := stored[subjects[i]]
			if !ok {
				rest = append(rest, a)
				continue
			}
			sequences = append(sequences, m.Sequence)
			if h, err := decode(a.Hash); err == nil {
				delete(c.open, h)
			}
		}
		c.found.AddAll(sequences)
		alerts = rest
	}
	return alerts, nil
}

// note keeps the alerts that are not in UNIQUE with what is known of their claims.
func (c *Comparison) note(ctx context.Context, alerts []Alert) error {
	current := c.generations[0]
	subjects := make([]string, len(alerts))
	for i, a := range alerts {
		subjects[i] = c.claimSubject(current, a.Hash)
	}
	claims, err := c.bus.Lookup(ctx, proto.BucketStream(proto.BucketHashes), subjects)
	if err != nil {
		return fmt.Errorf("look up claims: %w", err)
	}
	for i, a := range alerts {
		h, err := decode(a.Hash)
		if err != nil {
			return err
		}
		one := open{start: a.Start}
		if stored, ok := claims[subjects[i]]; ok {
			claim, err := proto.DecodeClaim(stored.Data)
			if err != nil {
				return fmt.Errorf("the claim of %s: %w", a.ID, err)
			}
			if claim.Silent {
				delete(c.open, h)
				c.silent[h] = struct{}{}
				continue
			}
			if !claim.Released { // a released one asks for the alert
				one.claim, one.raw, one.stored = stored.Sequence, claim.RawSequence, stored.Time
			}
		}
		before, known := c.open[h]
		switch {
		case known:
			one.id = before.id
		case len(c.open) == maxOpen:
			return fmt.Errorf("more than %d alerts of the window are not in UNIQUE: take a smaller window", maxOpen)
		case c.named < MaxNamed:
			one.id = a.ID
			c.named++
		}
		c.open[h] = one
	}
	return nil
}

func (c *Comparison) claimSubject(generation uint64, hash string) string {
	return proto.BucketSubject(proto.BucketHashes, proto.HashKey(c.source, generation, hash))
}

func decode(text string) (h hash, err error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(data) != len(h) {
		return h, fmt.Errorf("hash %q: %w", text, proto.ErrMalformed)
	}
	return hash(data), nil
}

func (h hash) text() string { return base64.RawURLEncoding.EncodeToString(h[:]) }
