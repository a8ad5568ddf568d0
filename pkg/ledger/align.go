package ledger

import (
	"context"
	"fmt"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// fillBatch is how many sequences one step of Align takes.
const fillBatch = 1000

// Align keeps UNIQUE from giving out sequences a second time. A stream that has lost its end, by a damaged disk, goes
// on from what is left, and the ledgers would take the new alerts for those that had the sequences before:
//
//	UNIQUE before   1 ........................ 100
//	ledger          |---- confirmed ---- 90|
//	UNIQUE after    1 ............. 80              the next alert would be 81, "confirmed"
//	aligned         1 ............. 80 (gap) | 91   the gap is sequences without messages
//
// It fills what is missing up to the highest sequence that any ledger speaks of, and removes the filling. Whoever
// publishes to UNIQUE calls it first, and again when the server may have been restarted. It returns how many
// sequences it passed over; 0 is the rule, and costs two look-ups. It may be called from several places at once, and
// again after an error: that passes over more sequences at worst. Sequences above every ledger may be given out a
// second time; nothing speaks of them.
func Align(ctx context.Context, b *bus.Bus) (passed uint64, err error) {
	high, err := highest(ctx, b)
	if err != nil {
		return 0, fmt.Errorf("the highest sequence in the ledgers: %w", err)
	}
	unique, err := b.Volume(ctx, proto.StreamUnique)
	if err != nil {
		return 0, err
	}
	filled, err := b.Lookup(ctx, proto.StreamUnique, []string{proto.SubjectFiller})
	if err != nil {
		return 0, err
	}
	if unique.LastSequence >= high && len(filled) == 0 {
		return 0, nil
	}
	if unique.LastSequence < high {
		passed = high - unique.LastSequence
	}
	if unique.Messages == 0 && passed > 0 {
		return passed, b.PurgeBelow(ctx, proto.StreamUnique, high+1) // an empty stream goes on from there
	}
	for unique.LastSequence < high {
		fill := make([]bus.Message, min(fillBatch, high-unique.LastSequence))
		for i := range fill {
			fill[i].Subject = proto.SubjectFiller
		}
		// What became of a batch that failed, the stream's end says.
		tryErr := b.TryBatch(ctx, proto.StreamUnique, fill)
		last := unique.LastSequence
		if unique, err = b.Volume(ctx, proto.StreamUnique); err != nil {
			return passed, err
		}
		if unique.LastSequence == last {
			return passed, fmt.Errorf("pass over %d sequences that UNIQUE has lost: %w", high-last, tryErr)
		}
	}
	return passed, b.Purge(ctx, proto.StreamUnique, proto.SubjectFiller)
}

// highest is the highest sequence of UNIQUE that any ledger speaks of. Those of jobs count, too, unless they are about
// dead letters.
func highest(ctx context.Context, b *bus.Bus) (uint64, error) {
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{proto.BucketSubject(proto.BucketLedgers, ">")})
	if err != nil {
		return 0, err
	}
	others, err := aboutDead(ctx, b)
	if err != nil {
		return 0, err
	}
	high := uint64(0)
	for subject, s := range found {
		if others[proto.LedgerOf(subject)] {
			continue
		}
		r, err := proto.DecodeLedger(s.Data)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", subject, err)
		}
		high = max(high, r.Floor)
		for _, set := range []proto.Sequences{r.Written, r.Confirmed} {
			if ranges := set.Ranges(); len(ranges) > 0 {
				high = max(high, ranges[len(ranges)-1].Last)
			}
		}
	}
	return high, nil
}

// aboutDead are the tokens of the ledgers of jobs that send dead letters.
func aboutDead(ctx context.Context, b *bus.Bus) (map[string]bool, error) {
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketJobs), []string{proto.BucketSubject(proto.BucketJobs, proto.JobKey("*"))})
	if err != nil {
		return nil, err
	}
	tokens := map[string]bool{}
	for subject, s := range found {
		j, err := proto.DecodeJob(s.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", subject, err)
		}
		if j.Stream != proto.StreamUnique {
			tokens[proto.Token(proto.JobLedger(j.ID))] = true
		}
	}
	return tokens, nil
}
