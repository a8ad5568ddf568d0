package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
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
}

// suspicious reports whether a message is to be tried first: what was or may have been delivered before, and a dead
// letter that was put into RAW again.
func (d *Dedup) suspicious(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
	return d.care.Needed(meta) || len(m.Headers()[proto.HeaderRawSequence]) > 0
}

// try returns the suspects that are sound; the others are in the dead letters. Errors are ctx's.
func (d *Dedup) try(ctx context.Context, suspects []suspect) (sound []suspect, err error) {
	if len(suspects) == 0 {
		return nil, nil
	}
	messages := make([][]byte, len(suspects))
	for i, s := range suspects {
		messages[i] = s.msg.Data()
	}
	verdicts := d.trial.Try(ctx, 0, messages)
	if ctx.Err() != nil {
		return nil, ctx.Err() // not all of them are judged
	}
	for i, s := range suspects {
		if verdicts[i] == nil {
			sound = append(sound, s)
			continue
		}
		if err := d.reserve(ctx, s); err != nil {
			d.trouble.Report(err)
			_ = s.msg.NakWithDelay(buryDelay)
			continue
		}
		d.bury(ctx, s.msg, s.meta, verdicts[i])
	}
	return sound, nil
}

// reserve claims the row of a message whose envelope must not be read, else every pull that sees the row would bring
// it again. The claim is the message's own, so the letter can be tried again.
func (d *Dedup) reserve(ctx context.Context, s suspect) error {
	key, ok := proto.RawClaimKey(s.msg.Subject(), s.msg.Headers().Get(nats.MsgIdHdr))
	if !ok {
		return nil // it was not published by a fetcher, so no fetcher brings it again
	}
	err := d.bus.TryBatch(ctx, proto.BucketStream(proto.BucketHashes), []bus.Message{{
		Subject: proto.BucketSubject(proto.BucketHashes, key), Data: proto.Claim{RawSequence: sequenceOf(s.msg, s.meta)}.Encode(), ExpectEmpty: true,
	}})
	if err != nil && !errors.Is(err, bus.ErrConflict) { // claimed already: nobody brings it again
		return fmt.Errorf("claim: %w", err)
	}
	return nil
}
