// Package ledger is the delivery ledger of an output: the durable truth about what was confirmed at Devo
// and what may have been written there, kept because the bus's own acknowledgements live in memory and
// can be forgotten in a crash.
//
// One record for each sender process lies in the ledgers bucket; only that process writes it. A delivery
// is judged against all of them together:
//
//	          Begin: Written stored           Confirm: Confirmed stored
//	unseen ───────────────────────> written ───────────────────────────> confirmed ──> (below the floor)
//	                                   │
//	                                   │ broken connection, crash, pause beyond the acknowledgement wait
//	                                   └──> delivered again: Begin counts it as possibly resent
//
// A message in none of the records never left; one in Written may have arrived; one in Confirmed, or at
// or below the floor, is acknowledged without being sent.
package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// base is the instance name of the record that provisioning writes and that takes over the counters of
// processes that are gone.
const base = "base"

// staleAfter is how long a record may go without a sign of life before its process counts as gone. A
// living sender updates it at least every minute.
const staleAfter = 10 * time.Minute

// absorbTimeout bounds the acknowledgements within a batch; the batch as a whole ends with its context.
const absorbTimeout = time.Second

// Ledger is this process's hand on an output's ledger. It is safe for concurrent use: several
// connections of a process share it, and their writes are grouped.
type Ledger struct {
	bus      *bus.Bus
	output   string
	instance string // the first name; own.Instance is the one in use

	mu      sync.Mutex
	own     proto.Ledger
	version uint64 // counts changes of own
	names   int    // how many names were given up

	writing  chan struct{}  // holds one token: who has it may publish
	stored   uint64         // version that is stored; guarded by writing
	revision uint64         // stream sequence of the stored record; guarded by writing
	counted  proto.Counters // counters of the stored record; guarded by writing
}

// Verdict says what to do with the sequences of one delivery.
type Verdict struct {
	// Confirmed are to be acknowledged without being sent.
	Confirmed proto.Sequences
	// Resent are to be sent although they may have arrived before; they are counted.
	Resent proto.Sequences
}

// Open binds to the output's ledger under an instance name that no other process ever used.
func Open(b *bus.Bus, output, instance string) *Ledger {
	l := &Ledger{
		bus: b, output: output, instance: instance,
		own:     proto.Ledger{Instance: instance, Proof: proto.ProofHalfClose},
		writing: make(chan struct{}, 1),
	}
	l.writing <- struct{}{}
	return l
}

// Begin stores that seqs are about to be written, then judges them against every process's record. Only
// after it returned nil may the caller write what the verdict does not exclude. An error means that
// nothing may be written; the deliveries go back. It tries for as long as ctx lasts. doubtful are those of seqs whose
// alerts may have been sent from a message that was lost: what of them is not confirmed counts as resent.
func (l *Ledger) Begin(ctx context.Context, seqs []uint64, doubtful ...uint64) (Verdict, error) {
	var again, settled proto.Sequences // what this process itself had written, or settled, before
	revision, err := l.commit(ctx, func(own *proto.Ledger) {
		for _, s := range seqs {
			one := proto.Range{First: s, Last: s}
			if s <= own.Floor || own.Confirmed.Contains(s) {
				settled.AddRange(one)
			} else if own.Written.Contains(s) {
				again.AddRange(one)
			}
		}
		own.Written.AddAll(seqs)
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("ledger of output %s: %w", l.output, err)
	}
	others, err := l.others(ctx, revision)
	if err != nil {
		return Verdict{}, fmt.Errorf("ledger of output %s: %w", l.output, err)
	}
	v := Verdict{Resent: again}
	unstored := false // a judgement that the stored records do not show yet
	l.mu.Lock()
	for _, s := range seqs {
		one := proto.Range{First: s, Last: s}
		known := s <= others.Floor || others.Confirmed.Contains(s) || settled.Contains(s)
		switch {
		case known || s <= l.own.Floor || l.own.Confirmed.Contains(s):
			unstored = unstored || !known
			v.Confirmed.AddRange(one)
			v.Resent.RemoveRange(one)
			// Not written, so not in doubt; the next commit stores that.
			l.own.Written.RemoveRange(one)
		case others.Written.Contains(s):
			v.Resent.AddRange(one)
		}
	}
	for _, s := range doubtful {
		if !v.Confirmed.Contains(s) {
			v.Resent.AddRange(proto.Range{First: s, Last: s})
		}
	}
	l.own.Counters.Resent += uint64(v.Resent.Len())
	l.raise(others)
	l.version++
	l.mu.Unlock()
	if unstored || v.Resent.Len() > 0 {
		// Stored before anything is acknowledged or sent: a crash must not lose what was counted.
		if _, err := l.commit(ctx, func(*proto.Ledger) {}); err != nil {
			return Verdict{}, fmt.Errorf("ledger of output %s: %w", l.output, err)
		}
	}
	return v, nil
}

// others is every record of the output but this process's.
func (l *Ledger) others(ctx context.Context, revision uint64) (View, error) {
	found, err := l.records(ctx, revision)
	if err != nil {
		return View{}, err
	}
	delete(found, l.key())
	return merge(found)
}

// records reads every record of the output. It waits until the answer holds this process's record of
// revision: replicas apply writes in order, so one that has it also has every record that was stored
// before, in particular those of the process that had the deliveries first.
func (l *Ledger) records(ctx context.Context, revision uint64) (map[string]bus.Stored, error) {
	return backoff.Retry(ctx, func() (map[string]bus.Stored, error) {
		found, err := l.bus.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{allOf(l.output)})
		if err == nil && found[l.key()].Sequence < revision {
			err = errors.New("the replica that answered is behind")
		}
		return found, err
	}, backoff.WithBackOff(waits()), backoff.WithMaxElapsedTime(0))
}

// raise lifts the floor to that of others and on over everything that is confirmed without a gap, and
// forgets what lies below it. Callers hold mu.
func (l *Ledger) raise(others View) {
	all := others.Confirmed.Clone()
	all.AddSet(l.own.Confirmed)
	floor := max(l.own.Floor, others.Floor)
	for _, r := range all.Ranges() {
		if r.First > floor+1 {
			break
		}
		floor = max(floor, r.Last)
	}
	l.own.Floor = floor
	below := proto.Range{First: 0, Last: floor}
	l.own.Written.RemoveRange(below)
	l.own.Confirmed.RemoveRange(below)
}

// Confirm stores that seqs are confirmed; only after it returned nil may their deliveries be
// acknowledged. With an error they are not: they will be delivered again and judged.
func (l *Ledger) Confirm(ctx context.Context, seqs []uint64) error {
	return l.settle(ctx, seqs, func(c *proto.Counters, n uint64) { c.Confirmed += n })
}

// Skip notes that seqs are not this ledger's business, so that the floor can rise over them. They may be
// acknowledged at once, before that is stored: whoever gets them again skips them again. Nothing is counted.
func (l *Ledger) Skip(seqs []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Confirmed.AddAll(seqs)
	l.raise(View{})
	l.version++
}

// Dead stores that seqs ended in the output's dead letters, where they must lie already.
func (l *Ledger) Dead(ctx context.Context, seqs []uint64) error {
	return l.settle(ctx, seqs, func(c *proto.Counters, n uint64) { c.Dead += n })
}

func (l *Ledger) settle(ctx context.Context, seqs []uint64, count func(c *proto.Counters, n uint64)) error {
	_, err := l.commit(ctx, func(own *proto.Ledger) {
		// What is settled already, here or at another process, is not counted again.
		fresh := proto.SequencesOf(seqs...)
		fresh.RemoveRange(proto.Range{First: 0, Last: own.Floor})
		for _, r := range own.Confirmed.Ranges() {
			fresh.RemoveRange(r)
		}
		own.Written.Remove(seqs)
		own.Confirmed.AddAll(seqs)
		count(&own.Counters, uint64(fresh.Len()))
		l.raise(View{})
	})
	if err != nil {
		return fmt.Errorf("ledger of output %s: %w", l.output, err)
	}
	return nil
}

// Count adds to the counters; they are stored with the next change of the record, or by Touch.
func (l *Ledger) Count(add proto.Counters) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Counters.Add(add)
	l.version++
}

// SetProof stores how the output confirms from now on.
func (l *Ledger) SetProof(ctx context.Context, p proto.Proof) error {
	_, err := l.commit(ctx, func(own *proto.Ledger) { own.Proof = p })
	return err
}

// Touch stores the record as a sign of life, lifts the floor to ackFloor, the consumer's own (everything
// at or below it was acknowledged after it was confirmed, or exists no more), and takes over the counters of
// processes that are gone for good.
func (l *Ledger) Touch(ctx context.Context, ackFloor uint64) error {
	revision, err := l.commit(ctx, func(*proto.Ledger) { l.raise(View{Floor: ackFloor}) })
	if err != nil {
		return fmt.Errorf("ledger of output %s: %w", l.output, err)
	}
	found, err := l.records(ctx, revision)
	if err == nil {
		err = l.absorb(ctx, found)
	}
	if err != nil {
		return fmt.Errorf("ledger of output %s: %w", l.output, err)
	}
	return nil
}

// commit changes the own record and returns when the change is stored, with the record's revision.
// Concurrent commits share a write.
func (l *Ledger) commit(ctx context.Context, change func(own *proto.Ledger)) (revision uint64, err error) {
	l.mu.Lock()
	change(&l.own)
	l.version++
	mine := l.version
	l.mu.Unlock()

	select {
	case <-l.writing:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { l.writing <- struct{}{} }()
	if l.stored >= mine {
		return l.revision, nil
	}
	return l.store(ctx)
}

// record gives what is to be stored now, and where.
func (l *Ledger) record() (r storable, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.Updated = time.Now()
	r = storable{subject: l.keyLocked(), version: l.version, counters: l.own.Counters}
	r.data, err = l.own.Encode()
	return r, err
}

type storable struct {
	subject  string
	data     []byte
	version  uint64
	counters proto.Counters
}

// key is the subject of the own record.
func (l *Ledger) key() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keyLocked()
}

func (l *Ledger) keyLocked() string {
	return proto.BucketSubject(proto.BucketLedgers, proto.LedgerKey(l.output, l.own.Instance))
}

// store writes the record by compare-and-set, so that a write whose outcome was unknown cannot arrive
// late and replace a newer one. The caller holds the token.
func (l *Ledger) store(ctx context.Context) (revision uint64, err error) {
	r, err := l.record()
	if err != nil {
		return 0, err
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		ack, err := l.bus.JetStream().Publish(ctx, r.subject, r.data,
			jetstream.WithExpectLastSequencePerSubject(l.revision),
			jetstream.WithExpectStream(proto.BucketStream(proto.BucketLedgers)))
		if err == nil {
			l.revision = ack.Sequence
			return struct{}{}, nil
		}
		// Unknown, or refused because an earlier try did arrive: look.
		found, lookErr := l.bus.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{r.subject})
		if lookErr != nil {
			return struct{}{}, errors.Join(err, lookErr)
		}
		s, there := found[r.subject]
		switch {
		case there && bytes.Equal(s.Data, r.data):
			l.revision = s.Sequence
			return struct{}{}, nil
		case there:
			l.revision = s.Sequence
		case l.revision > 0 && bus.Conflict(err):
			l.rename()
			if r, err = l.record(); err != nil {
				return struct{}{}, backoff.Permanent(err)
			}
			return struct{}{}, errors.New("the record was taken over while this process was paused")
		}
		return struct{}{}, err
	}, backoff.WithBackOff(waits()), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return 0, err
	}
	l.stored, l.counted = r.version, r.counters
	return l.revision, nil
}

// rename goes on under a new name after another process took this one for gone: it slept for longer than
// staleAfter. What the stored record had counted is in the base record now; everything else is kept. The
// old key is not written again, because whoever took it over may still be removing it.
func (l *Ledger) rename() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names++
	l.own.Instance = fmt.Sprintf("%s-%d", l.instance, l.names)
	l.own.Counters.Sub(l.counted)
	l.version++
	l.revision, l.counted = 0, proto.Counters{}
}

func waits() backoff.BackOff {
	w := backoff.NewExponentialBackOff()
	w.InitialInterval = 20 * time.Millisecond
	w.MaxInterval = 2 * time.Second
	return w
}
