package dedup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/seen"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
)

// TrialWork names [Try] for [trial.Enter], without which a message that ends the process is not put aside.
const TrialWork = "dedup"

// Try does with one message what depends on its bytes.
func Try(_ byte, message []byte) {
	var envelopes proto.EnvelopeReader
	env, err := decode(&envelopes, message)
	if err != nil {
		return
	}
	_ = claimSubject(env, env.Hash)
	for _, other := range env.OtherHashes {
		_ = claimSubject(env, other)
	}
	_ = proto.UniqueSubject(env.Source, env.Generation, env.Hash)
}

// suspect is a message that may have ended a process before.
type suspect struct {
	msg  jetstream.Msg
	meta *jetstream.MsgMetadata
	key  string // of its row's claim; empty: unknown
}

// marks are the rows, by the keys of their claims, of which no copy may be read untried: those that are being tried,
// and those that were condemned. It is safe for concurrent use.
type marks struct {
	any       atomic.Bool // nearly always false, and then nothing needs a key
	mu        sync.Mutex
	trying    map[string]int
	condemned seen.Set[string]
}

// begin marks rows while they are tried, end takes that back.
func (m *marks) begin(suspects []suspect) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range suspects {
		if s.key != "" {
			m.any.Store(true)
			m.trying[s.key]++
		}
	}
}

func (m *marks) end(suspects []suspect) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range suspects {
		if m.trying[s.key]--; m.trying[s.key] <= 0 {
			delete(m.trying, s.key)
		}
	}
	m.any.Store(len(m.trying) > 0 || m.condemned.Len() > 0)
}

func (m *marks) condemn(key string) {
	if key != "" {
		m.condemned.Add(key)
	}
}

// has reports whether a message is a copy of a marked row.
func (m *marks) has(msg jetstream.Msg) bool {
	if !m.any.Load() {
		return false
	}
	key := claimKey(msg)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trying[key] > 0 || m.condemned.Has(key)
}

// claimKey is where the row of a message is claimed, found without reading it; empty where that cannot be told.
func claimKey(msg jetstream.Msg) string {
	key, _ := proto.RawClaimKey(msg.Subject(), msg.Headers().Get(nats.MsgIdHdr))
	return key
}

// suspicious reports whether a message is to be tried first: what was or may have been delivered before, and a dead
// letter that was put into RAW again.
func (d *Dedup) suspicious(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
	return d.care.Needed(meta) || len(m.Headers()[proto.HeaderRawSequence]) > 0
}

// sound returns the messages of a batch that may be read; the others are in the dead letters, or wait. Errors are
// ctx's.
func (d *Dedup) sound(ctx context.Context, batch []delivery) (sound []delivery, err error) {
	var suspects []suspect
	suspected := make([]bool, len(batch))
	suspecting := func(i int, m delivery) {
		suspected[i] = true
		suspects = append(suspects, suspect{m.msg, m.meta, claimKey(m.msg)})
	}
	for i, m := range batch {
		if d.suspicious(m.msg, m.meta) {
			suspecting(i, m)
		}
	}
	d.marks.begin(suspects)
	marked := suspects
	defer func() { d.marks.end(marked) }()
	for i, m := range batch {
		if !suspected[i] && d.marks.has(m.msg) {
			suspecting(i, m)
		}
	}
	if len(suspects) == 0 {
		return batch, nil
	}
	for i, m := range batch {
		if !suspected[i] {
			sound = append(sound, m)
		}
	}
	tried, err := d.try(ctx, suspects)
	return append(sound, tried...), err
}

// try returns the suspects that are sound.
func (d *Dedup) try(ctx context.Context, suspects []suspect) (sound []delivery, err error) {
	messages := make([][]byte, len(suspects))
	for i, s := range suspects {
		messages[i] = s.msg.Data()
	}
	verdicts := d.trial.Try(ctx, 0, messages)
	if ctx.Err() != nil {
		return nil, ctx.Err() // not all of them are judged
	}
	for i, s := range suspects {
		switch verdict := verdicts[i]; {
		case verdict == nil:
			sound = append(sound, delivery{s.msg, s.meta})
		case errors.Is(verdict, trial.ErrUnjudged):
			_ = s.msg.NakWithDelay(trial.Delay(s.meta.NumDelivered))
		default:
			d.putAside(ctx, s, verdict)
		}
	}
	return sound, nil
}

// putAside writes the letter of a condemned message; a copy of a row that another message has claimed is a duplicate.
func (d *Dedup) putAside(ctx context.Context, s suspect, verdict error) {
	d.marks.condemn(s.key)
	switch first, err := d.reserve(ctx, s); {
	case err != nil:
		d.trouble.Report(err)
		_ = s.msg.NakWithDelay(buryDelay)
	case first:
		d.bury(ctx, s.msg, s.meta, verdict)
	default:
		d.metrics.duplicates.Add(ctx, 1)
		_ = s.msg.Ack() // lost: it comes again and is a duplicate again
	}
}

// reserve claims the row of a message whose envelope must not be read, else every pull that sees the row would bring
// it again; a released claim is taken over. The claim is the message's own, so the letter can be tried again. first is false for a row that another
// message has claimed: this one is a duplicate.
func (d *Dedup) reserve(ctx context.Context, s suspect) (first bool, err error) {
	if s.key == "" {
		return true, nil // it was not published by a fetcher, so no fetcher brings it again
	}
	stream, subject, own := proto.BucketStream(proto.BucketHashes), proto.BucketSubject(proto.BucketHashes, s.key), sequenceOf(s.msg, s.meta)
	found, err := d.bus.Lookup(ctx, stream, []string{subject})
	if err != nil {
		return false, err
	}
	m := bus.Message{Subject: subject, Data: proto.Claim{RawSequence: own}.Encode(), ExpectEmpty: true}
	if stored, taken := found[subject]; taken {
		claim, err := proto.DecodeClaim(stored.Data)
		if err != nil || !claim.Released {
			return err != nil || claim.RawSequence == own, nil
		}
		m = bus.Message{Subject: subject, Data: proto.Claim{RawSequence: own, Again: true}.Encode(), ExpectLast: stored.Sequence}
	}
	if err := d.bus.TryBatch(ctx, stream, []bus.Message{m}); err != nil {
		return false, fmt.Errorf("claim: %w", err) // also if another was faster: the next look tells
	}
	return true, nil
}
