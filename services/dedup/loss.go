package dedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"defenderiot/pkg/bus"

	"defenderiot/pkg/reconcile"
	"defenderiot/proto"
)

const (
	// patience is after how long the re-scan counts as done whatever the positions say: Azure may have deleted what
	// they stood at.
	rescanPatience = 24 * time.Hour
	// lossShown is for how long a loss that is settled goes on to be shown by the metrics.
	lossShown = 24 * time.Hour
	// namedHashes is how many alerts a line of the log names.
	namedHashes = 10
)

// losses brings what was lost back: see [proto.Loss]. It belongs to the keeper.
type losses struct {
	bus    *bus.Bus
	logger *slog.Logger

	loss     *proto.Loss
	revision uint64
	end      uint64 // of the hashes bucket at the round's begin
	drained  uint64 // RAW's end when the fetchers had read everything again; 0: they have not

	stood   map[string]time.Time // the positions that went back since claims were released last
	rewound bool                 // all of them did
}

// note takes what the watch has noticed, and stores that it is lost. Only after that the watch may keep what it saw.
func (l *losses) note(ctx context.Context, w *watch, s *sight, lost map[string]uint64) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	l.end = s.volumes[hashesStream].LastSequence
	if len(lost) > 0 {
		if err := l.notice(ctx, lost); err != nil {
			return err
		}
	}
	releasing := l.loss != nil && l.loss.State == proto.LossReleasing
	switch {
	case releasing:
		w.audit = nil // all claims are looked at
		if s.fresh && w.seen.Audited < l.loss.Next {
			l.loss.Next = w.seen.Audited // what was made just before the end, again
		}
	case s.fresh:
		w.audit = &audit{next: w.seen.Audited}
	}
	return nil
}

// round goes on with what was noticed, as far as one round can.
func (l *losses) round(ctx context.Context, w *watch, s *sight) error {
	var err error
	if w.audit != nil {
		err = l.audit(ctx, w)
	}
	if l.loss == nil {
		return err
	}
	switch l.loss.State {
	case proto.LossReleasing:
		return errors.Join(err, l.release(ctx, w))
	case proto.LossReading:
		return errors.Join(err, l.read(ctx, s))
	}
	return err
}

// audit goes on looking at the latest claims after a start, for what no figure tells. It releases nothing: that is done
// once the loss is stored.
func (l *losses) audit(ctx context.Context, w *watch) error {
	a, err := reconcile.Audit(ctx, l.bus, w.audit.next, w.seen.UniqueSince, false)
	if a.Lost > 0 {
		if noticed := l.notice(ctx, map[string]uint64{proto.StreamUnique: uint64(a.Lost)}); noticed != nil {
			return errors.Join(err, noticed) // and found again
		}
		w.audit = nil
		return err
	}
	w.audit.next, w.audit.waiting = a.Next, reconcile.Earlier(w.audit.waiting, a.Waiting)
	w.seen.Audited = max(w.seen.Audited, reconcile.Earlier(w.audit.waiting, a.Next))
	if a.Done {
		w.audit = nil
	}
	return err
}

// notice says that something was lost, and stores it before anything is done about it.
func (l *losses) notice(ctx context.Context, lost map[string]uint64) error {
	if len(lost) == 1 && lost[hashesStream] > 0 && l.loss != nil && l.loss.State != proto.LossSettled {
		return nil // what is under way looks at all claims
	}
	next := l.loss
	if next == nil || next.State == proto.LossSettled {
		next = &proto.Loss{Noticed: time.Now().UTC(), Messages: map[string]uint64{}, From: l.end + 1}
	}
	said := addLost(next, lost)
	next.State = proto.LossReleasing
	next.Next, next.Waiting = 0, 0
	if err := l.put(ctx, next); err != nil {
		return err
	}
	l.stood, l.rewound = nil, false
	l.logger.Error("the bus has lost messages that it had acknowledged: "+said+"; what belongs to them is fetched again",
		"hint", "look at the machine's disk; `collector status` shows what becomes of it, docs/operating.md under MessagesLost what can be done")
	return nil
}

// Restored notes that the bus was restored from an older copy: the keeper then has everything read again, after it has
// compared the claims with UNIQUE. It returns when that is stored. Errors are the bus's; doing it again is harmless.
func Restored(ctx context.Context, b *bus.Bus) error {
	l := &losses{bus: b}
	if err := l.load(ctx); err != nil {
		return err
	}
	hashes, err := b.Volume(ctx, hashesStream)
	if err != nil {
		return err
	}
	return l.put(ctx, &proto.Loss{
		State: proto.LossReleasing, Noticed: time.Now().UTC(), Restored: true, Messages: map[string]uint64{}, From: hashes.LastSequence + 1,
	})
}

// release gives up the claims of what is nowhere, and has everything read again once it has looked at all of them.
func (l *losses) release(ctx context.Context, w *watch) error {
	next := *l.loss
	a, err := reconcile.Audit(ctx, l.bus, next.Next, w.seen.UniqueSince, true)
	next.Next, next.Waiting, next.Released = a.Next, reconcile.Earlier(next.Waiting, a.Waiting), next.Released+uint64(a.Released)
	if a.Released > 0 {
		l.stood, l.rewound = nil, false
	}
	if err != nil || !a.Done {
		return errors.Join(err, l.put(ctx, &next))
	}
	if next.Positions == nil || !l.rewound {
		if err := l.rewind(ctx, &next); err != nil {
			return errors.Join(err, l.put(ctx, &next))
		}
	}
	if next.Waiting == 0 {
		next.State = proto.LossReading
		w.seen.Audited = max(w.seen.Audited, a.Next)
	} else {
		next.Next, next.Waiting = next.Waiting, 0
	}
	l.drained = 0
	return l.put(ctx, &next)
}

// rewind moves the positions back and notes in next where they stood at the furthest.
func (l *losses) rewind(ctx context.Context, next *proto.Loss) error {
	if l.stood == nil {
		l.stood = map[string]time.Time{}
	}
	if err := reconcile.Rewind(ctx, l.bus, l.stood); err != nil {
		return err
	}
	stood := maps.Clone(l.stood)
	for token, at := range next.Positions {
		if at.After(stood[token]) {
			stood[token] = at
		}
	}
	next.Positions, l.rewound = stood, true
	l.logger.Warn(fmt.Sprintf("%d claims of alerts that are nowhere are released, and every input is read again from its start; what was sent is not sent again", next.Released))
	return nil
}

// read waits until the fetchers have read everything again, and dedup has passed it on; then it says what is missing.
func (l *losses) read(ctx context.Context, s *sight) error {
	if l.drained == 0 {
		if there, err := l.reread(ctx); err != nil || !there {
			return err
		}
		l.drained = s.volumes[proto.StreamRaw].LastSequence
	}
	if s.settled[proto.StreamRaw] < l.drained {
		return nil
	}
	gone, hashes, err := reconcile.Unclaimed(ctx, l.bus, l.loss.From, proto.MaxLossHashes)
	if err != nil {
		return err
	}
	next := *l.loss
	next.State, next.Settled, next.Gone, next.Hashes = proto.LossSettled, time.Now().UTC(), gone, hashes
	if err := l.put(ctx, &next); err != nil {
		return err
	}
	what := "loss"
	if next.Restored {
		what = "restore"
	}
	text := fmt.Sprintf("everything is read again after the "+what+" of %s: %d of %d alerts whose claims were released are back", next.Noticed.Format(time.RFC3339), next.Released-min(gone, next.Released), next.Released)
	if gone == 0 {
		l.logger.Info(text)
		return nil
	}
	l.logger.Error(fmt.Sprintf("%s; %d are no longer in Azure, hashes %s", text, gone, strings.Join(hashes[:min(len(hashes), namedHashes)], ", ")),
		"hint", "`collector status --json` names up to 1000; a backup may have them")
	return nil
}

// reread reports whether every fetcher stands where it stood, or further.
func (l *losses) reread(ctx context.Context) (bool, error) {
	if time.Since(l.loss.Noticed) > rescanPatience {
		return true, nil
	}
	prefix := proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix)
	records, err := l.bus.Lookup(ctx, proto.BucketStream(proto.BucketCheckpoints), []string{prefix + ">"})
	if err != nil {
		return false, err
	}
	for token, stood := range l.loss.Positions {
		s, there := records[prefix+token]
		if !there {
			continue
		}
		c, err := proto.DecodeCheckpoint(s.Data)
		if err != nil {
			return false, fmt.Errorf("%s%s: %w", prefix, token, err)
		}
		if c.LastEventTime.Before(stood) {
			return false, nil
		}
	}
	return true, nil
}

func (l *losses) load(ctx context.Context) error {
	loss, revision, err := ReadLoss(ctx, l.bus)
	if err != nil {
		return err
	}
	l.loss, l.revision = loss, revision
	return nil
}

// ReadLoss returns the last loss, nil where there was none, and its revision.
func ReadLoss(ctx context.Context, b *bus.Bus) (*proto.Loss, uint64, error) {
	subject := proto.BucketSubject(proto.BucketCheckpoints, proto.LossKey)
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketCheckpoints), []string{subject})
	if err != nil {
		return nil, 0, err
	}
	s, there := found[subject]
	if !there {
		return nil, 0, nil
	}
	loss, err := proto.DecodeLoss(s.Data)
	return loss, s.Sequence, err
}

// put stores the loss; with a conflict another keeper has gone on, and the next round with what that one stored.
func (l *losses) put(ctx context.Context, next *proto.Loss) error {
	data, err := next.Encode()
	if err != nil {
		return err
	}
	if err := store(ctx, l.bus, proto.LossKey, data, l.revision); err != nil {
		return fmt.Errorf("store the loss: %w", err)
	}
	return l.load(ctx)
}

// shown is what the metrics show: messages lost, by stream, and alerts that did not come back.
func (l *losses) shown() (lost map[string]uint64, gone uint64) {
	if !ShowsLoss(l.loss, time.Now()) {
		return nil, 0
	}
	return l.loss.Messages, l.loss.Gone
}

// ShowsLoss reports whether a loss still concerns an operator at now: until a day after everything is read again.
func ShowsLoss(l *proto.Loss, now time.Time) bool {
	return l != nil && (l.State != proto.LossSettled || now.Sub(l.Settled) <= lossShown)
}
