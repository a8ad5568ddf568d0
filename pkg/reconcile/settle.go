package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// Page is how many alerts Add takes at a time: their messages come whole, and may be large.
const Page = 250

// Output is what an output has of the alerts that UNIQUE has. Its JSON names are stable.
type Output struct {
	Name string `json:"output"`
	// Confirmed are settled in the output's ledger, and are no dead letter of it.
	Confirmed uint64 `json:"confirmed"`
	Waiting   uint64 `json:"waiting"`
	Dead      uint64 `json:"dead_letters"`
	// Before were stored before the output began, and are not for it.
	Before uint64 `json:"before_the_output"`
}

// Missing is one alert that is neither delivered nor on its way. Its JSON names are stable.
type Missing struct {
	ID    string    `json:"alert_id,omitempty"`
	Hash  string    `json:"hash"`
	Start time.Time `json:"start"`
	// Lost: it is claimed, and its message is nowhere. Otherwise it was never fetched.
	Lost bool `json:"lost"`
}

// Report is what became of the alerts. Every alert counts in exactly one of Unique, Waiting, Unfetched, Silent,
// Unknown, Dead and Missing. Its JSON names are stable.
type Report struct {
	Azure  uint64 `json:"in_azure"`
	Unique uint64 `json:"in_unique"`
	// Waiting are in RAW, on their way to dedup.
	Waiting uint64 `json:"waiting_for_dedup"`
	// Unfetched start at or after the fetcher's position: it comes to them.
	Unfetched uint64 `json:"not_fetched_yet"`
	// Silent were sent before, by the collector whose state was imported or under another mode or generation, or were
	// given up with their dead letter.
	Silent uint64 `json:"sent_before"`
	// Unknown are claimed, and older than what UNIQUE still has: claimed, delivery no longer known.
	Unknown uint64 `json:"delivery_no_longer_known"`
	// Dead are letters of the fetcher or of dedup.
	Dead    uint64    `json:"dead_letters"`
	Missing uint64    `json:"missing"`
	Named   []Missing `json:"missing_alerts"` // at most MaxNamed, by start
	Outputs []Output  `json:"outputs"`

	earliest time.Time // start of a missing alert
	lost     []claim
}

// claim is one in the hashes bucket.
type claim struct {
	hash     hash
	sequence uint64
	raw      uint64
}

// letters are the dead letters, as far as they matter here.
type letters struct {
	ids     map[string]struct{}
	raw     proto.Sequences
	outputs map[string]proto.Sequences
}

// Settle looks for what is not in UNIQUE, and says what became of every alert. position is the fetcher's; outputs are
// the configured ones. Errors are the bus's.
func (c *Comparison) Settle(ctx context.Context, position time.Time, outputs []string) (*Report, error) {
	waiting, err := c.readRaw(ctx)
	if err != nil {
		return nil, err
	}
	// What has moved on since is found now. Only after that the letters: dedup writes one before RAW is acknowledged.
	if err := c.again(ctx); err != nil {
		return nil, err
	}
	dead, err := readLetters(ctx, c.bus)
	if err != nil {
		return nil, err
	}
	r := &Report{Unique: uint64(c.found.Len()), Silent: uint64(len(c.silent))}
	for h, o := range c.open {
		_, inRaw := waiting[h]
		switch {
		case inRaw:
			r.Waiting++
		case o.claim > 0 && dead.raw.Contains(o.raw), dead.has(o.id):
			r.Dead++
		case o.claim > 0 && o.stored.Before(c.first):
			r.Unknown++
		case o.claim == 0 && !o.start.Before(position):
			r.Unfetched++
		default:
			r.miss(h, o)
		}
	}
	r.Azure = r.Unique + r.Waiting + r.Unfetched + r.Silent + r.Unknown + r.Dead + r.Missing
	slices.SortFunc(r.Named, func(x, y Missing) int { return cmp.Or(x.Start.Compare(y.Start), cmp.Compare(x.Hash, y.Hash)) })
	for _, name := range outputs {
		o, err := c.output(ctx, name, dead.outputs[name])
		if err != nil {
			return nil, err
		}
		r.Outputs = append(r.Outputs, o)
	}
	return r, nil
}

func (l *letters) has(id string) bool {
	if id == "" {
		return false
	}
	_, ok := l.ids[proto.Identity(id)]
	return ok
}

func (r *Report) miss(h hash, o open) {
	r.Missing++
	if len(r.Named) < MaxNamed {
		r.Named = append(r.Named, Missing{ID: o.id, Hash: h.text(), Start: o.start, Lost: o.claim > 0})
	}
	if r.earliest.IsZero() || o.start.Before(r.earliest) {
		r.earliest = o.start
	}
	if o.claim > 0 {
		r.lost = append(r.lost, claim{hash: h, sequence: o.claim, raw: o.raw})
	}
}

// readRaw returns which of the open alerts wait in RAW.
func (c *Comparison) readRaw(ctx context.Context) (map[hash]struct{}, error) {
	waiting := map[hash]struct{}{}
	if len(c.open) == 0 {
		return waiting, nil
	}
	consumer, err := c.bus.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return nil, fmt.Errorf("consumer of dedup: %w", err)
	}
	// What is acknowledged stays in RAW until the keeper takes it away.
	floor := consumer.CachedInfo().AckFloor.Stream
	var reader proto.EnvelopeReader
	err = readAll(ctx, c.bus, proto.StreamRaw, floor+1, func(_ uint64, m *jetstream.RawStreamMsg) error {
		e, err := reader.Read(m.Data)
		if err != nil || e.Source != c.source {
			return nil // dedup decides about it
		}
		if h, err := decode(e.Hash); err == nil {
			if _, ok := c.open[h]; ok {
				waiting[h] = struct{}{}
			}
		}
		return nil
	})
	return waiting, err
}

// again looks the open alerts up once more.
func (c *Comparison) again(ctx context.Context) error {
	page := make([]Alert, 0, Page)
	all := make([]hash, 0, len(c.open))
	for h := range c.open {
		all = append(all, h)
	}
	for part := range slices.Chunk(all, Page) {
		page = page[:0]
		for _, h := range part {
			o := c.open[h]
			page = append(page, Alert{Hash: h.text(), ID: o.id, Start: o.start})
		}
		if err := c.Add(ctx, page); err != nil {
			return err
		}
	}
	return nil
}

func readLetters(ctx context.Context, b *bus.Bus) (*letters, error) {
	l := &letters{ids: map[string]struct{}{}, outputs: map[string]proto.Sequences{}}
	err := readAll(ctx, b, proto.StreamDead, 1, func(sequence uint64, m *jetstream.RawStreamMsg) error {
		d, err := proto.DecodeDeadLetter(m.Data)
		if err != nil {
			return fmt.Errorf("dead letter %d: %w", sequence, err)
		}
		switch d.Stage {
		case proto.StageSender:
			of := l.outputs[d.Output]
			of.AddAll([]uint64{d.Sequence})
			l.outputs[d.Output] = of
			return nil
		case proto.StageDedup:
			// The claim names the first one of a message that was put into RAW again.
			l.raw.AddAll([]uint64{d.Sequence})
			l.raw.AddAll([]uint64{d.Claimed()})
		}
		if d.AlertID != "" {
			l.ids[proto.Identity(d.AlertID)] = struct{}{}
		}
		return nil
	})
	return l, err
}

// readAll reads a stream from a sequence up to its present end.
func readAll(ctx context.Context, b *bus.Bus, stream string, first uint64, each func(sequence uint64, m *jetstream.RawStreamMsg) error) error {
	s, err := b.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", stream, err)
	}
	state := s.CachedInfo().State
	for next := max(first, state.FirstSeq); next <= state.LastSeq; {
		messages, err := b.Read(ctx, stream, next)
		if err != nil || len(messages) == 0 {
			return err
		}
		for _, m := range messages {
			if err := each(m.Sequence, m); err != nil {
				return err
			}
		}
		next = messages[len(messages)-1].Sequence + 1
	}
	return nil
}

// output counts what the output's ledger says of the alerts in UNIQUE.
func (c *Comparison) output(ctx context.Context, name string, dead proto.Sequences) (Output, error) {
	o := Output{Name: name}
	view, err := ledger.Read(ctx, c.bus, name)
	if err != nil {
		return o, err
	}
	consumer, err := c.bus.Consumer(ctx, proto.StreamUnique, proto.OutputConsumer(name))
	if err != nil {
		return o, fmt.Errorf("consumer of output %s: %w", name, err)
	}
	rest := c.found.Clone()
	if first := consumer.CachedInfo().Config.OptStartSeq; first > 1 {
		rest.RemoveRange(proto.Range{First: 1, Last: first - 1})
		o.Before = uint64(c.found.Len() - rest.Len())
	}
	own := rest.Len()
	for _, r := range dead.Ranges() {
		rest.RemoveRange(r)
	}
	o.Dead = uint64(own - rest.Len())
	undead := rest.Len()
	if view.Floor > 0 {
		rest.RemoveRange(proto.Range{First: 1, Last: view.Floor})
	}
	for _, r := range view.Confirmed.Ranges() {
		rest.RemoveRange(r)
	}
	o.Waiting = uint64(rest.Len())
	o.Confirmed = uint64(undead) - o.Waiting
	return o, nil
}

// Earliest is when the first missing alert starts, the zero time when none is missing.
func (r *Report) Earliest() time.Time { return r.earliest }

// Release gives up the claims of what r calls lost, so that the fetcher brings it again when it reads there, and it
// counts as possibly resent. Nothing works on these alerts: their RAW messages are gone, which dedup acknowledges after
// UNIQUE has stored them. It returns how many it released; doing it again changes nothing.
func (c *Comparison) Release(ctx context.Context, r *Report) (released int, err error) {
	for part := range slices.Chunk(r.lost, Page) {
		claims := make([]heldClaim, len(part))
		for i, l := range part {
			claims[i] = heldClaim{subject: c.claimSubject(c.generations[0], l.hash.text()), sequence: l.sequence, raw: l.raw}
		}
		n, err := release(ctx, c.bus, claims)
		released += n
		if err != nil {
			return released, err
		}
	}
	return released, nil
}
