package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// searched is how many messages of RAW one audit reads for dead letters that were put there again.
const searched = 20_000

// places are where else than in UNIQUE a claim's alert may be. What it has read of them it remembers for one audit, and
// reads on from there. The zero value is ready.
type places struct {
	letters    proto.Sequences // of RAW, which dead letters of dedup name
	nextLetter uint64

	again    map[uint64]uint64 // RAW's messages that were there before, by the sequence that their claims name
	nextRaw  uint64
	searched int
}

// onItsWay reports whether RAW holds the claim's alert, not acknowledged. The sequence alone says nothing: RAW may
// have lost its end and given it to another alert. The message is not decoded: it may be one that ends whoever does it.
func (p *places) onItsWay(ctx context.Context, b *bus.Bus, floor uint64, c heldClaim) (bool, error) {
	if c.raw > floor {
		m, err := b.Get(ctx, proto.StreamRaw, c.raw)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound): // gone, or a dead letter that was put there again
		case err != nil:
			return false, err
		default:
			key, known := proto.RawClaimKey(m.Subject, m.Header.Get(nats.MsgIdHdr))
			if !known || key == strings.TrimPrefix(c.subject, proto.BucketSubject(proto.BucketHashes, "")) {
				return true, nil
			}
		}
	}
	whole, err := p.search(ctx, b, floor)
	if err != nil {
		return false, err
	}
	return !whole || p.again[c.raw] > floor, nil
}

// search reads RAW for dead letters that were put there again, up to its end. whole is false where it did not come
// there: then one may wait behind.
func (p *places) search(ctx context.Context, b *bus.Bus, floor uint64) (whole bool, err error) {
	raw, err := b.Volume(ctx, proto.StreamRaw)
	if err != nil {
		return false, err
	}
	if p.again == nil {
		p.again = map[uint64]uint64{}
	}
	for p.nextRaw = max(p.nextRaw, floor+1, raw.FirstSequence); p.nextRaw <= raw.LastSequence; {
		if p.searched >= searched {
			return false, nil
		}
		messages, err := b.Read(ctx, proto.StreamRaw, p.nextRaw)
		if err != nil {
			return false, err
		}
		p.searched += max(len(messages), 1)
		if len(messages) == 0 {
			p.nextRaw++ // what cannot be read ends an answer
		}
		for _, m := range messages {
			if first, err := strconv.ParseUint(m.Header.Get(proto.HeaderRawSequence), 10, 64); err == nil {
				p.again[first] = m.Sequence
			}
			p.nextRaw = m.Sequence + 1
		}
	}
	return true, nil
}

// readLetters notes the sequences that letters of dedup name: that of their message, and that of its claim.
func (p *places) readLetters(ctx context.Context, b *bus.Bus) error {
	dead, err := b.Volume(ctx, proto.StreamDead)
	if err != nil {
		return err
	}
	for p.nextLetter = max(p.nextLetter, dead.FirstSequence, 1); p.nextLetter <= dead.LastSequence; {
		messages, err := b.ReadMatching(ctx, proto.StreamDead, proto.DeadPrefix(proto.StageDedup, "")+".*", p.nextLetter)
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			return nil
		}
		for _, m := range messages {
			d, err := proto.DecodeDeadLetter(m.Data)
			if err != nil {
				return fmt.Errorf("dead letter %d: %w", m.Sequence, err)
			}
			p.letters.AddAll([]uint64{d.Sequence})
			p.letters.AddAll([]uint64{d.Claimed()})
			p.nextLetter = m.Sequence + 1
		}
	}
	return nil
}

// drop takes out what the leaders have in UNIQUE or in the letters of dedup: a look-up may leave things out, and what is
// left is released.
func (p *places) drop(ctx context.Context, b *bus.Bus, open map[string]heldClaim) error {
	if err := p.readLetters(ctx, b); err != nil {
		return err
	}
	for unique, c := range open {
		stored, err := there(b.GetLast(ctx, proto.StreamUnique, unique))
		if err == nil && !stored {
			stored, err = p.dead(ctx, b, c)
		}
		if err != nil {
			return err
		}
		if stored {
			delete(open, unique)
		}
	}
	return nil
}

// dead reports whether the claim's alert is in a letter of dedup.
func (p *places) dead(ctx context.Context, b *bus.Bus, c heldClaim) (bool, error) {
	if p.letters.Contains(c.raw) {
		return true, nil
	}
	letter := proto.DeadLetter{Stage: proto.StageDedup, Stream: proto.StreamRaw, Sequence: c.raw}
	return there(b.GetLast(ctx, proto.StreamDead, letter.Subject()))
}

// there turns an answer of a leader into whether there is a message.
func there(_ *jetstream.RawStreamMsg, err error) (bool, error) {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}
