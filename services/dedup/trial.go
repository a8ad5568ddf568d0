package dedup

import (
	"context"
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
		switch first, err := d.reserve(ctx, s); {
		case err != nil:
			d.trouble.Report(err)
			_ = s.msg.NakWithDelay(buryDelay)
		case first:
			d.bury(ctx, s.msg, s.meta, verdicts[i])
		default:
			d.metrics.duplicates.Add(ctx, 1)
			_ = s.msg.Ack() // lost: it comes again and is a duplicate again
		}
	}
	return sound, nil
}

// reserve claims the row of a message whose envelope must not be read, else every pull that sees the row would bring
// it again. The claim is the message's own, so the letter can be tried again. first is false for a row that another
// message has claimed: this one is a duplicate.
func (d *Dedup) reserve(ctx context.Context, s suspect) (first bool, err error) {
	key, ok := proto.RawClaimKey(s.msg.Subject(), s.msg.Headers().Get(nats.MsgIdHdr))
	if !ok {
		return true, nil // it was not published by a fetcher, so no fetcher brings it again
	}
	stream, subject, own := proto.BucketStream(proto.BucketHashes), proto.BucketSubject(proto.BucketHashes, key), sequenceOf(s.msg, s.meta)
	found, err := d.bus.Lookup(ctx, stream, []string{subject})
	if err != nil {
		return false, err
	}
	if stored, taken := found[subject]; taken {
		claim, err := proto.DecodeClaim(stored.Data)
		return err != nil || claim.RawSequence == own, nil
	}
	if err := d.bus.TryBatch(ctx, stream, []bus.Message{{Subject: subject, Data: proto.Claim{RawSequence: own}.Encode(), ExpectEmpty: true}}); err != nil {
		return false, fmt.Errorf("claim: %w", err) // also if another was faster: the next look tells
	}
	return true, nil
}
