package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// Silence marks the claims of messages of RAW, named by their sequences there, as silent: their alerts are given up, so
// no audit takes them for lost. A claim whose alert is in UNIQUE is left alone; so is one that somebody changes
// meanwhile. It reads every claim, since the bytes of such a message may be what nobody can read. It returns how many
// it marked; doing it again changes nothing. Errors are the bus's; what was marked until then stays so.
func Silence(ctx context.Context, b *bus.Bus, raw proto.Sequences) (silenced int, err error) {
	hashes := proto.BucketStream(proto.BucketHashes)
	open := map[string]heldClaim{}
	err = readAll(ctx, b, hashes, 1, func(_ uint64, m *jetstream.RawStreamMsg) error {
		claim, err := proto.DecodeClaim(m.Data)
		if err == nil && !claim.Silent && !claim.Released && raw.Contains(claim.RawSequence) {
			key := strings.TrimPrefix(m.Subject, proto.BucketSubject(proto.BucketHashes, ""))
			open[proto.UniqueSubjectOf(key)] = heldClaim{subject: m.Subject, sequence: m.Sequence, raw: claim.RawSequence}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read the claims: %w", err)
	}
	uniques := make([]string, 0, len(open))
	for unique := range open {
		uniques = append(uniques, unique)
	}
	for part := range slices.Chunk(uniques, Page) {
		page := make(map[string]heldClaim, len(part))
		for _, unique := range part {
			page[unique] = open[unique]
		}
		if err := dropStored(ctx, b, page); err != nil {
			return silenced, err
		}
		for _, c := range page {
			m := bus.Message{Subject: c.subject, Data: proto.Claim{RawSequence: c.raw, Silent: true}.Encode(), ExpectLast: c.sequence}
			err := b.TryBatch(ctx, hashes, []bus.Message{m})
			switch {
			case err == nil:
				silenced++
			case !errors.Is(err, bus.ErrConflict):
				return silenced, fmt.Errorf("mark the claims: %w", err)
			}
		}
	}
	return silenced, nil
}
