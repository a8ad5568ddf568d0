package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// Bounds of one publication to RAW, those of the server's atomic batches and of the memory on both sides.
const (
	batchMessages = 1000
	batchBytes    = 8 << 20
	// messageBytes is what one message may hold: the streams' 32 MiB less headers and subject.
	messageBytes = 32<<20 - 64<<10
)

// outgoing is a row on its way to RAW.
type outgoing struct {
	row  *resourcegraph.Row
	hash string
	// claim: known under the mode that is being replaced; claimed anew without sending.
	claim bool
}

// publish stores what is new on the page in RAW and returns nil when RAW has acknowledged all of it (and
// DEAD what can never be published). It waits while RAW is full.
func (s *session) publish(ctx context.Context, p *pull, page *resourcegraph.Page) (err error) {
	number := int(s.epoch<<32 | s.pages.Add(1)&(1<<32-1)) // unique over all holders ever: see RawMsgID
	rows, dead := s.hash(page.Rows)
	fresh, err := s.unsettled(ctx, rows)
	if err != nil {
		return err
	}
	p.duplicates.Add(int64(len(rows) - len(fresh)))
	s.metrics.duplicates.Add(ctx, int64(len(rows)-len(fresh)), s.metrics.labels)

	header := bus.TraceHeader(ctx) // the page's span is what later spans link to
	if len(fresh) > 0 {
		var span trace.Span
		ctx, span = s.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attribute.Int("rows", len(fresh))))
		defer span.End()
		defer func() { telemetry.Fail(span, err) }()
	}
	batch := make([]bus.Message, 0, min(len(fresh), batchMessages))
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := s.store(ctx, batch); err != nil {
			return err
		}
		batch, size = batch[:0], 0
		return nil
	}
	sent, claimed := int64(0), int64(0)
	for i, o := range fresh {
		data, err := s.envelope(p, page, o)
		if err == nil && len(data) > messageBytes {
			err = plainly("the row's message of %d bytes exceeds the %d that the bus takes", len(data), messageBytes)
		}
		if err != nil {
			dead = append(dead, s.letter(o.row, err))
			fresh[i].claim = false // nobody will claim it
			continue
		}
		if len(batch) == batchMessages || (len(batch) > 0 && size+len(data) > batchBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch = append(batch, bus.Message{
			Subject: s.rawSubject, Data: data, Header: header,
			MsgID: proto.RawMsgID(s.source, s.generation, p.id, number, i, o.hash),
		})
		size += len(data)
		sent++
		if o.claim {
			claimed++
		}
	}
	if err := flush(); err != nil {
		return err
	}
	tellApart(dead)
	for _, d := range dead {
		if err := s.bury(ctx, d); err != nil {
			return err
		}
	}
	if err := s.awaitClaims(ctx, fresh); err != nil {
		return err
	}
	// Only now are they safe, and only now may another read leave them out.
	for _, o := range fresh {
		s.recent.Add(hashKey(o.hash))
	}
	p.sent.Add(sent - claimed)
	s.metrics.fresh.Add(ctx, sent, s.metrics.labels)
	return nil
}

// hash gives each row its hash; rows that cannot have one become dead letters.
func (s *session) hash(page []resourcegraph.Row) (rows []outgoing, dead []proto.DeadLetter) {
	rows = make([]outgoing, 0, len(page))
	for i := range page {
		row := &page[i]
		err := row.Err
		var h string
		if err == nil {
			h, err = s.hashOf(row, s.service.Deduplication)
		}
		if err != nil {
			dead = append(dead, s.letter(row, err))
			continue
		}
		rows = append(rows, outgoing{row: row, hash: h})
	}
	return rows, dead
}

// hashOf is the row's hash under mode. A row that makes the code panic is that row's failure alone.
func (s *session) hashOf(row *resourcegraph.Row, mode string) (hash string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("hashing the row: %v", r)
		}
	}()
	if row.ID == "" {
		return "", plainly("the row has no id")
	}
	if mode == DeduplicateVersion {
		return proto.HashVersionOf(row.ID, row.Raw, s.service.Ignore)
	}
	return proto.HashIdentity(row.ID), nil
}

// unsettled leaves out the rows whose first sighting is safe already: acknowledged by RAW in this
// session, or claimed. A look-up only saves work, the claim decides; so an answer that lags behind does
// no harm.
func (s *session) unsettled(ctx context.Context, rows []outgoing) ([]outgoing, error) {
	rest := make([]outgoing, 0, len(rows))
	onPage := make(map[string]bool, len(rows))
	subjects := make([]string, 0, len(rows))
	for _, o := range rows {
		if onPage[o.hash] || s.recent.Has(hashKey(o.hash)) {
			continue
		}
		onPage[o.hash] = true
		rest = append(rest, o)
		subjects = append(subjects, s.claims.subject(o.hash))
	}
	known, err := s.lookup(ctx, subjects)
	if err != nil {
		return nil, err
	}
	fresh := rest[:0]
	for i, o := range rest {
		if !known[subjects[i]] {
			fresh = append(fresh, o)
		}
	}
	if s.known != nil {
		return fresh, s.known.mark(ctx, fresh)
	}
	if !s.migrating.Load() || len(fresh) == 0 {
		return fresh, nil
	}
	return fresh, s.knownBefore(ctx, fresh)
}

// knownBefore marks the rows that are known under the deduplication mode that is being replaced.
func (s *session) knownBefore(ctx context.Context, rows []outgoing) error {
	former := DeduplicateAlert
	if s.service.Deduplication == DeduplicateAlert {
		former = DeduplicateVersion
	}
	subjects := make([]string, len(rows))
	for i, o := range rows {
		h, err := s.hashOf(o.row, former)
		if err != nil {
			continue // no former hash, so not known by it
		}
		subjects[i] = s.claims.subject(h)
	}
	wanted := make([]string, 0, len(subjects))
	for _, subject := range subjects {
		if subject != "" {
			wanted = append(wanted, subject)
		}
	}
	known, err := s.lookup(ctx, wanted)
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].claim = known[subjects[i]]
	}
	return nil
}

// lookup says which of the subjects hold a readable claim, with one request for each 1,000.
func (s *session) lookup(ctx context.Context, subjects []string) (map[string]bool, error) {
	// An unreadable claim settles nothing: the row goes on and dedup decides. A released one asks for it.
	return s.find(ctx, subjects, func(c proto.Claim, err error) bool { return err == nil && !c.Released })
}

// find says which of the subjects hold a claim that counts; counts gets what reading the claim has returned.
func (s *session) find(ctx context.Context, subjects []string, counts func(proto.Claim, error) bool) (map[string]bool, error) {
	if len(subjects) == 0 {
		return nil, nil
	}
	stored, err := s.bus.Lookup(ctx, proto.BucketStream(proto.BucketHashes), subjects)
	if err != nil {
		return nil, fmt.Errorf("look up claims: %w", err)
	}
	known := make(map[string]bool, len(stored))
	for subject, m := range stored {
		if counts(proto.DecodeClaim(m.Data)) {
			known[subject] = true
		}
	}
	return known, nil
}

// envelope encodes a row as it is stored; masks are applied here, after hashing and before anything
// leaves memory. What the envelope holds beside the row is left out where a rule masks it in the row.
func (s *session) envelope(p *pull, page *resourcegraph.Page, o outgoing) (data []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("preparing the row: %v", r)
		}
	}()
	raw := []byte(o.row.Raw)
	if s.service.Masker != nil {
		buffer, _ := maskBuffers.Get().(*[]byte)
		defer keep(buffer)
		if *buffer, err = s.service.Masker.Append((*buffer)[:0], raw); err != nil {
			return nil, plainly("masking the row: %w", err)
		}
		raw = *buffer
	}
	e := proto.Envelope{
		Row: raw, Hash: o.hash, HashVersion: proto.HashVersion,
		AlertID: s.identity(o.row), EventTime: s.hidden.startOf(o.row), Source: s.source, Scope: s.hidden.scopeOf(o.row),
		PullingID: p.id, PullStart: p.start, Generation: s.generation, FetchTime: page.Received,
		Host: s.service.Host, Tag: s.service.Tag, Environment: s.service.Environment, ClaimOnly: o.claim,
	}
	return e.Encode()
}

// letter is the dead letter of a row that cannot be published. Its payload is masked like any other row; if
// that fails, or makes it too large to store, there is none.
func (s *session) letter(row *resourcegraph.Row, reason error) (d proto.DeadLetter) {
	now := s.wall().UTC()
	d = proto.DeadLetter{
		Stage: proto.StageFetcher, AlertID: s.identity(row), Reason: s.reason(reason),
		Attempts: 1, First: now, Last: now,
	}
	if s.service.Masker == nil {
		d.Payload = row.Raw
		return d
	}
	defer func() {
		if recover() != nil {
			d.Payload = nil
		}
	}()
	if masked, err := s.service.Masker.Append(nil, row.Raw); err == nil && len(masked) <= messageBytes {
		d.Payload = masked
	}
	return d
}

// tellApart numbers the letters of a page that name no alert and are equal: rows without an id that differ only in what
// is masked are letters of their own then. Azure's order puts them next to each other, so the next reading numbers them
// alike.
func tellApart(letters []proto.DeadLetter) {
	equal := make(map[string]uint64, len(letters))
	for i := range letters {
		if letters[i].AlertID != "" {
			continue
		}
		name := letters[i].MsgID()
		letters[i].Sequence = equal[name]
		equal[name]++
	}
}

// bury stores a dead letter, once in this session however often the row is read again.
func (s *session) bury(ctx context.Context, d proto.DeadLetter) error {
	name := proto.HashIdentity(d.MsgID())
	if s.recent.Has(hashKey(name)) {
		return nil
	}
	err := s.withRoom(ctx, proto.StreamDead, func() error { return s.bus.DeadLetter(ctx, d) })
	if err != nil {
		return fmt.Errorf("dead letter of %q: %w", d.AlertID, err)
	}
	s.recent.Add(hashKey(name))
	s.metrics.dead.Add(ctx, 1, s.metrics.labels)
	s.logger.Warn("a row cannot be published and went to the dead letters (stream DEAD)", "alert_id", d.AlertID, "reason", d.Reason)
	return nil
}

// store publishes one batch.
func (s *session) store(ctx context.Context, batch []bus.Message) error {
	err := s.withRoom(ctx, proto.StreamRaw, func() error { return s.bus.PublishBatch(ctx, proto.StreamRaw, batch) })
	if err == nil || !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	// The server takes less than it should. Singly, so that the others get through.
	for i := range batch {
		err := s.withRoom(ctx, proto.StreamRaw, func() error { return s.bus.PublishBatch(ctx, proto.StreamRaw, batch[i:i+1]) })
		if errors.Is(err, bus.ErrTooLarge) {
			err = s.buryMessage(ctx, batch[i], err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) buryMessage(ctx context.Context, m bus.Message, reason error) error {
	e, err := proto.DecodeEnvelope(m.Data)
	if err != nil {
		return fmt.Errorf("own envelope: %w", err)
	}
	now := s.wall().UTC()
	return s.bury(ctx, proto.DeadLetter{
		Stage: proto.StageFetcher, AlertID: e.AlertID, Attempts: 1, First: now, Last: now,
		Reason: fmt.Sprintf("%v (%d bytes; raise the server's max_payload to 32 MiB)", reason, len(m.Data)),
	})
}

// withRoom repeats do while the stream is full: that is how a slow stage downstream holds the fetcher
// back. Nothing is dropped and nothing piles up, because the page in hand is the only one.
func (s *session) withRoom(ctx context.Context, stream string, do func() error) error {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := do()
		if !errors.Is(err, bus.ErrFull) {
			if err == nil {
				s.fullRaw.over(s.logger, "the stream takes rows again")
			}
			return err
		}
		s.fullRaw.raise(s.logger, slog.LevelWarn, "waiting: stream "+stream+" is full until later stages have caught up", err)
		if !s.pause(ctx, jittered(wait)) {
			return fault.ShuttingDown(ctx.Err())
		}
	}
}

// claims builds the subjects of a generation's claims.
type claims struct{ prefix string }

func claimsOf(s proto.Source, generation uint64) claims {
	return claims{proto.BucketSubject(proto.BucketHashes, proto.GenerationPrefix(s, generation)) + "."}
}

func (c claims) subject(hash string) string { return c.prefix + hash }

// hashKey is a hash without a pointer, for a set of many.
func hashKey(hash string) (k [22]byte) {
	copy(k[:], hash)
	return k
}
