package fetcher

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/faultpoint"
	"defenderiot/proto"
)

// claiming is the phase before the first pull of a generation that must not send everything:
//
//	floor            through                  before
//	  |---- claimed ----|--- being claimed ---|--- ordinary pulls, once all is claimed ---
//
// It reads like every back-fill. What was sent before goes through RAW too, marked so that dedup claims it
// and sends nothing; a page counts as done when its claims are there. Until then no ordinary read takes
// place, so none can publish the same row to be sent and overtake its claim. A crash repeats from Through.
type claiming struct {
	s *session
	proto.Claiming
	ids    map[string]bool
	former claims   // of the generation KnownIn
	modes  []string // that its claims may have been made in

	claimed, sent atomic.Int64
}

const (
	// idReach is how far behind Before named rows are looked for: the other collector may have cut the
	// time that it noted to whole seconds.
	idReach = time.Second
	// slowClaims is after how long it is said that dedup does not follow.
	slowClaims = 10 * time.Second
)

func (s *session) newClaiming(c proto.Checkpoint) *claiming {
	k := &claiming{s: s, Claiming: *c.Claiming, ids: make(map[string]bool, len(c.Claiming.IDs)), modes: []string{s.service.Deduplication}}
	for _, id := range k.IDs {
		k.ids[proto.Identity(id)] = true
	}
	k.former = claimsOf(s.source, k.KnownIn)
	if c.Deduplication != "" && c.Deduplication != s.service.Deduplication {
		k.modes = append(k.modes, c.Deduplication)
	}
	return k
}

// claimKnown does what is left of the phase, and stores that it is over. Its errors are those of ending.
func (s *session) claimKnown(ctx context.Context) error {
	c := s.record.read()
	if c.Claiming == nil {
		return nil
	}
	k := s.newClaiming(c)
	s.known = k
	defer func() { s.known = nil }()
	readable := c.Subscriptions
	if readable == nil { // before anything is read; see open
		readable = s.readableOrNone(ctx, s.stop)
	}
	from, to := later(k.Through, s.floor), k.Before
	if len(k.ids) > 0 {
		to = to.Add(idReach)
	}
	s.logger.Info(fmt.Sprintf("Claiming the records from %s to %s that were sent before, without sending them again", from.Format(sinceLayout), k.Before.Format(sinceLayout)))
	_, err := s.cover(ctx, s.scopes(), from, to, backfillWorkers, func(ctx context.Context, low time.Time) error {
		return s.record.update(ctx, func(c *proto.Checkpoint) bool {
			if c.Claiming == nil || !low.After(c.Claiming.Through) {
				return false
			}
			c.Claiming.Through = low
			return true
		})
	})
	if err != nil {
		return err
	}
	if k.KnownIn != 0 {
		// No window finds the rows without a start; the first ordinary read of them would send them all.
		if err := k.nullStarts(ctx); err != nil {
			return err
		}
	}
	err = s.record.update(ctx, func(c *proto.Checkpoint) bool {
		c.Claiming, c.Subscriptions = nil, readable
		return true
	})
	if err != nil {
		return err
	}
	s.logger.Info(fmt.Sprintf("All records that were sent before are claimed: %d without being sent, %d others were new and are sent", k.claimed.Load(), k.sent.Load()))
	return nil
}

func (k *claiming) nullStarts(ctx context.Context) error {
	var failures complaint
	defer failures.forget()
	for {
		err := k.s.nullStarts(ctx)
		if err == nil || ending(ctx, err) {
			return err
		}
		failures.raise(k.s.logger, slog.LevelError, "claiming records without a start time failed and is repeated", err)
		if !k.s.pause(ctx, lastRetry) {
			return fault.ShuttingDown(err)
		}
	}
}

// mark says of each row whether it was sent before.
func (k *claiming) mark(ctx context.Context, rows []outgoing) error {
	if k.KnownIn == 0 {
		for i := range rows {
			rows[i].claim = k.old(rows[i].row.Start, rows[i].row.ID)
		}
		return nil
	}
	var subjects []string
	of := make([][]string, len(rows))
	for i, o := range rows {
		for _, mode := range k.modes {
			if h, err := k.s.hashOf(o.row, mode); err == nil {
				of[i] = append(of[i], k.former.subject(h))
			}
		}
		subjects = append(subjects, of[i]...)
	}
	known, err := k.s.lookup(ctx, subjects)
	if err != nil {
		return err
	}
	for i := range rows {
		for _, subject := range of[i] {
			rows[i].claim = rows[i].claim || known[subject]
		}
	}
	return nil
}

// old says whether the imported collector has sent a row: it starts before the position, or is named. A
// name is the whole id or its last part. Rows without a start were never found by that collector.
func (k *claiming) old(start time.Time, id string) bool {
	if start.IsZero() {
		return false
	}
	identity := proto.Identity(id)
	return start.Before(k.Before) || k.ids[identity] || k.ids[identity[strings.LastIndexByte(identity, '/')+1:]]
}

// awaitDedup waits until dedup is done with what RAW holds now. Until then claims that say what was sent before may
// still be missing, and what they belong to would be published to be sent a second time. Its errors are those of ending.
func (s *session) awaitDedup(ctx context.Context) error {
	begun, target, idle := time.Now(), uint64(0), 0
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		behind, done, err := s.dedupBehind(ctx, &target, &idle)
		if done {
			s.slowClaims.over(s.logger, "dedup has claimed what was sent before")
			return nil
		}
		if err == nil && behind > 0 && time.Since(begun) > slowClaims {
			err = fmt.Errorf("%d records are not claimed", behind)
		}
		if err != nil {
			s.slowClaims.raise(s.logger, slog.LevelWarn, "waiting until dedup has claimed what was sent before", err)
			if err := s.record.check(ctx); ending(ctx, err) {
				return err
			}
		}
		if !s.pause(ctx, jittered(wait)) {
			return fault.ShuttingDown(ctx.Err())
		}
	}
}

// dedupBehind says how many messages lie before target that dedup is not done with; a target of 0 becomes the end of
// RAW. RAW has no gaps: only its beginning is ever purged. idle counts the looks in a row at which dedup had nothing to
// do: what the server is just handing out is for a moment neither pending nor unacknowledged, so one look is not enough.
func (s *session) dedupBehind(ctx context.Context, target *uint64, idle *int) (behind uint64, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timing.call)
	defer cancel()
	consumer, err := s.bus.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return 0, false, fmt.Errorf("consumer %s: %w", proto.ConsumerDedup, err)
	}
	i := consumer.CachedInfo()
	if *target == 0 {
		*target = i.Delivered.Stream + i.NumPending
	}
	if i.NumPending == 0 && i.NumAckPending == 0 {
		*idle++
	} else {
		*idle = 0
	}
	if i.AckFloor.Stream >= *target || *idle > 1 {
		return 0, true, nil
	}
	return *target - i.AckFloor.Stream, false, nil
}

// awaitClaims waits until dedup has claimed what was marked. Before that no reading may count it as settled: once the
// marking is over, a row that is not claimed yet would be published to be sent, and could overtake its own claim.
func (s *session) awaitClaims(ctx context.Context, rows []outgoing) error {
	var subjects []string
	for _, o := range rows {
		if o.claim {
			subjects = append(subjects, s.claims.subject(o.hash))
		}
	}
	begun := time.Now()
	for wait := 20 * time.Millisecond; len(subjects) > 0; wait = min(2*wait, 2*time.Second) {
		// Under a claim that cannot be read dedup buries the row and claims nothing: that is its last word, too.
		known, err := s.find(ctx, subjects, func(c proto.Claim, err error) bool { return err != nil || !c.Released })
		if err != nil {
			return err
		}
		if len(known) == len(subjects) {
			break
		}
		if time.Since(begun) > slowClaims {
			s.slowClaims.raise(s.logger, slog.LevelWarn, "waiting until dedup has claimed what was sent before", fmt.Errorf("%d of %d records are claimed", len(known), len(subjects)))
			if err := s.record.check(ctx); err != nil {
				return err
			}
		}
		if !s.pause(ctx, jittered(wait)) {
			return fault.ShuttingDown(ctx.Err())
		}
	}
	s.slowClaims.over(s.logger, "dedup claims again what was sent before")
	if k := s.known; k != nil {
		k.claimed.Add(int64(len(subjects)))
		k.sent.Add(int64(len(rows) - len(subjects)))
		faultpoint.Hit(faultpoint.KnownClaimed)
	}
	return nil
}
