package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// View is an output's ledger, all records together.
type View struct {
	Floor     uint64          // everything up to here is settled
	Confirmed proto.Sequences // settled above the floor
	Written   proto.Sequences // written and not settled: may have arrived
	Proof     proto.Proof     // unproved if any living process says so
	Counters  proto.Counters  // since the output was created
	Senders   int             // processes with a sign of life in the last ten minutes
}

// Unconfirmed counts the events that were written and are not settled.
func (v *View) Unconfirmed() int { return v.Written.Len() }

// FirstUnconfirmed is the sequence behind everything that is settled without a gap; the floor alone may lag.
func (v *View) FirstUnconfirmed() uint64 {
	first := v.Floor + 1
	for _, r := range v.Confirmed.Ranges() {
		if r.First > first {
			break
		}
		first = max(first, r.Last+1)
	}
	return first
}

// Read returns the output's ledger. A record that cannot be read is an error that names it.
func Read(ctx context.Context, b *bus.Bus, output string) (View, error) {
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{allOf(output)})
	if err != nil {
		return View{}, fmt.Errorf("ledger of output %s: %w", output, err)
	}
	view, err := merge(found)
	if err != nil {
		return View{}, fmt.Errorf("ledger of output %s: %w", output, err)
	}
	return view, nil
}

func allOf(output string) string {
	return proto.BucketSubject(proto.BucketLedgers, proto.Token(output)+".*")
}

func merge(found map[string]bus.Stored) (View, error) {
	v := View{Proof: proto.ProofHalfClose}
	for subject, s := range found {
		r, err := proto.DecodeLedger(s.Data)
		if err != nil {
			return View{}, fmt.Errorf("%s: %w", subject, err)
		}
		v.Floor = max(v.Floor, r.Floor)
		v.Confirmed.AddSet(r.Confirmed)
		v.Written.AddSet(r.Written)
		v.Counters.Add(r.Counters)
		if r.Instance != base && time.Since(r.Updated) < staleAfter {
			v.Senders++
			if r.Proof == proto.ProofUnproved {
				v.Proof = proto.ProofUnproved
			}
		}
	}
	for _, r := range v.Confirmed.Ranges() {
		v.Written.RemoveRange(r)
	}
	below := proto.Range{First: 0, Last: v.Floor}
	v.Written.RemoveRange(below)
	v.Confirmed.RemoveRange(below)
	return v, nil
}

// absorb moves the counters of each process that is gone, and of which nothing is in doubt any more, into
// the base record and removes its own, both in one atomic batch: no count is lost or taken twice
// whatever dies in between, and of several processes that try it one succeeds. found are the records.
func (l *Ledger) absorb(ctx context.Context, found map[string]bus.Stored) error {
	baseSubject := proto.BucketSubject(proto.BucketLedgers, proto.LedgerKey(l.output, base))
	stored, ok := found[baseSubject]
	if !ok {
		return nil // provisioned by hand; nothing to count into
	}
	total, err := proto.DecodeLedger(stored.Data)
	if err != nil {
		return err
	}
	view, err := merge(found)
	if err != nil {
		return err
	}
	total.Floor = view.Floor
	total.Updated = time.Now()
	var batch []*nats.Msg
	var gone []string
	own := l.key()
	for subject, s := range found {
		r, err := proto.DecodeLedger(s.Data)
		if err != nil {
			return err
		}
		if r.Instance == base || subject == own || time.Since(r.Updated) < staleAfter ||
			!below(r.Written, view.Floor) || !below(r.Confirmed, view.Floor) {
			continue
		}
		total.Counters.Add(r.Counters)
		marker := expecting(subject, nil, s.Sequence)
		marker.Header.Set("KV-Operation", "DEL")
		batch = append(batch, marker)
		gone = append(gone, subject)
	}
	if len(gone) == 0 {
		return nil
	}
	data, err := total.Encode()
	if err != nil {
		return err
	}
	batch = append(batch, expecting(baseSubject, data, stored.Sequence))
	if _, err := jetstreamext.PublishMsgBatch(ctx, l.bus.JetStream(), batch, jetstreamext.BatchFlowControl{AckTimeout: absorbTimeout}); err != nil {
		if bus.Conflict(err) {
			return nil // another process was faster
		}
		return fmt.Errorf("take over the ledger records of %d processes that are gone: %w", len(gone), err)
	}
	for _, subject := range gone {
		if err := l.bus.Purge(ctx, proto.BucketStream(proto.BucketLedgers), subject); err != nil {
			return err
		}
	}
	return nil
}

func expecting(subject string, data []byte, sequence uint64) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(sequence))
	return m
}

func below(s proto.Sequences, floor uint64) bool {
	ranges := s.Ranges()
	return len(ranges) == 0 || ranges[len(ranges)-1].Last <= floor
}
