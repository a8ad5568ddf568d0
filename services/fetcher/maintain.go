package fetcher

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// task is something done at intervals beside the pulls.
type task struct {
	name string
	due  time.Time // monotonic
	// next is when it is due again after it was begun at that time.
	next func(begun time.Time) time.Time
	// yields is until when it waits for a back-fill, which reads the same.
	yields time.Time
	do     func(ctx context.Context) error

	tries    int // that failed in a row
	failures complaint
}

// A failed task is tried again after firstRetry, then after twice as long each time, up to lastRetry.
const firstRetry, lastRetry = 5 * time.Second, time.Minute

// maintain runs what is done beside the pulls, from the first one on. Lookback and sweep have their bounds to keep and
// wait for nothing, so each goes on by itself: a sweep may take many minutes. The rest is done in turn.
func (s *session) maintain(ctx context.Context, group *errgroup.Group) error {
	if !s.waitForFirstPull(ctx) {
		return nil
	}
	t, now := s.timing, time.Now()
	yields := now.Add(t.lookback)
	each := func(d time.Duration) func(time.Time) time.Time {
		return func(time.Time) time.Time { return time.Now().Add(jittered(d)) }
	}
	coverage := func(ctx context.Context) error { return s.coverage(ctx, group) }
	for _, tasks := range [][]*task{
		// From begin to begin, so that its own time does not add up.
		{{name: "lookback", due: s.firstLookback(now), next: func(begun time.Time) time.Time { return begun.Add(t.lookback) }, yields: yields, do: s.lookback}},
		// One that is overdue begins behind the lookback of the start, which reads the same.
		{{name: "sweep", due: later(s.nextSweep(now), now.Add(time.Minute)), next: func(time.Time) time.Time { return s.nextSweep(time.Now()) }, yields: yields, do: s.sweep}},
		{
			{name: "rows without a start time", due: now, next: each(t.nullStarts), do: s.nullStarts},
			{name: "coverage of subscriptions", due: now, next: each(t.coverage), do: coverage},
			{name: "purge of replaced generations", due: now, next: each(t.coverage), do: s.purge},
		},
	} {
		group.Go(func() error { return orderly(s.repeat(ctx, tasks)) })
	}
	return nil
}

// repeat does tasks one after another, whichever is due first.
func (s *session) repeat(ctx context.Context, tasks []*task) error {
	defer func() {
		for _, t := range tasks {
			t.failures.forget()
		}
	}()
	for {
		next := slices.MinFunc(tasks, func(a, b *task) int { return a.due.Compare(b.due) })
		if d := time.Until(next.due); d > 0 && !s.pause(ctx, d) {
			return nil
		}
		if ctx.Err() != nil || stopped(s.stop) {
			return nil
		}
		begun := time.Now()
		if s.backfilling.Load() && begun.Before(next.yields) {
			next.due = begun.Add(firstRetry)
			continue
		}
		err := next.do(ctx)
		switch {
		case err == nil:
			next.failures.over(s.logger, next.name+" succeeds again")
			next.due, next.tries = next.next(begun), 0
		case ending(ctx, err):
			return err
		default:
			next.failures.raise(s.logger, slog.LevelError, next.name+" failed and is repeated", err)
			wait := min(firstRetry<<min(next.tries, 8), lastRetry)
			next.tries++
			if d, ok := fault.Delay(err); ok {
				wait = max(wait, d)
			}
			next.due = time.Now().Add(jittered(wait))
		}
	}
}

// firstLookback is when the lookback is due that belongs to the start: now, unless the first pull has just read
// all that it would read, which is so at the very first start and would only spend the quota again.
func (s *session) firstLookback(now time.Time) time.Time {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	if first.from.After(s.lookbackFrom()) || len(s.record.read().Rescan) > 0 {
		return now
	}
	return first.begun.Add(s.timing.lookback)
}

func (s *session) lookbackFrom() time.Time {
	return later(s.clock.now().Add(-s.service.Lookback), s.floor)
}

// lookback reads again what started recently, for rows that Resource Graph shows late, and the windows
// that came back short. It moves no position.
func (s *session) lookback(ctx context.Context) error {
	if err := s.rescan(ctx); err != nil {
		return err
	}
	from, p := s.lookbackFrom(), s.newPull()
	for _, sc := range s.scopes() {
		if _, err := s.read(ctx, p, request{window: proto.Window{From: from}, scope: sc, background: true}, nil); err != nil {
			return err
		}
	}
	s.logger.Log(ctx, levelOf(p.sent.Load() > 0), fmt.Sprintf("The lookback to %s has read %d records in %d requests; %d of them Resource Graph had shown late",
		from.Format(sinceLayout), p.received.Load(), p.requests.Load(), p.sent.Load()), p.fields())
	return nil
}

const day = 24 * time.Hour

// ownMoment is the latest moment up to t that is this source's own of a day, spread over the day among sources.
func (f *Fetcher) ownMoment(t time.Time) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(f.source.Token()))
	own := t.Truncate(day).Add(time.Duration(h.Sum64()%uint64(day/time.Second)) * time.Second)
	if own.After(t) {
		return own.Add(-day)
	}
	return own
}

// nextSweep is when the next sweep is due: a day after the last one, by the record, so that no restart puts it off.
func (s *session) nextSweep(now time.Time) time.Time {
	there := s.clock.now()
	swept := s.record.read().SweptAt
	if swept == nil || swept.Sub(there) > time.Hour { // the clock was wrong
		return now
	}
	return now.Add(swept.Add(day).Sub(there))
}

// sweep reads everything that Azure keeps, the oldest first: each row comes at about the same distance from the begin,
// so that how long all of it takes does not matter to the time between two readings of it.
func (s *session) sweep(ctx context.Context) error {
	now := s.clock.now()
	rows, err := s.cover(ctx, s.scopes(), now.Add(-s.timing.sweepDepth), now, 1, nil)
	if err != nil {
		return err
	}
	s.logger.Info(fmt.Sprintf("The daily sweep has read %d records", rows))
	swept := s.ownMoment(now.Add(time.Minute)) // the remote clock is not exact
	return s.record.update(ctx, func(c *proto.Checkpoint) bool {
		c.SweptAt = &swept
		return true
	})
}

// nullStarts reads the rows without a usable start time, which no window finds.
func (s *session) nullStarts(ctx context.Context) error {
	p := s.newPull()
	rows := int64(0)
	for _, sc := range s.scopes() {
		res, err := s.read(ctx, p, request{nullStarts: true, scope: sc, background: true}, nil)
		if err != nil {
			return err
		}
		rows += res.rows
	}
	s.metrics.nullStarts.Record(ctx, rows, s.metrics.labels)
	if p.sent.Load() > 0 {
		s.logger.Info(fmt.Sprintf("%d records without a start time were new", p.sent.Load()))
	}
	return nil
}

// migrate claims everything anew under the configured deduplication mode: rows that are known under the
// former one are claimed without being sent. While it runs, every read of this session does so too, and each page counts
// as read when its claims are there.
func (s *session) migrate(ctx context.Context) error {
	s.logger.Info("The deduplication mode has changed: known records are claimed anew without being sent", "mode", s.service.Deduplication)
	if !s.waitForFirstPull(ctx) || !s.waitForBackfill(ctx) {
		return nil
	}
	if _, err := s.cover(ctx, s.scopes(), s.floor, s.clock.now(), 1, nil); err != nil {
		return err
	}
	var failures complaint
	defer failures.forget()
	for {
		err := s.nullStarts(ctx)
		if err == nil {
			break
		}
		if ending(ctx, err) {
			return err
		}
		failures.raise(s.logger, slog.LevelError, "claiming records anew failed and is repeated", err)
		if !s.pause(ctx, lastRetry) {
			return nil
		}
	}
	err := s.record.update(ctx, func(c *proto.Checkpoint) bool {
		c.Deduplication = s.service.Deduplication
		return true
	})
	if err != nil {
		return err
	}
	s.migrating.Store(false)
	s.logger.Info("All known records are claimed under the new deduplication mode", "mode", s.service.Deduplication)
	return nil
}

// waitForFirstPull keeps two reads of the same rows apart; false means that the session ends.
func (s *session) waitForFirstPull(ctx context.Context) bool {
	select {
	case <-s.firstPull:
		return true
	case <-s.stop:
		return false
	case <-ctx.Done():
		return false
	}
}

func (s *session) waitForBackfill(ctx context.Context) bool {
	for s.backfilling.Load() {
		if !s.pause(ctx, time.Second) {
			return false
		}
	}
	return true
}

// purge removes the claims of generations that were replaced a day ago.
func (s *session) purge(ctx context.Context) error {
	for _, g := range s.record.read().Replaced {
		if s.clock.now().Sub(g.ReplacedAt) < s.timing.purgeAfter || g.Generation == s.generation {
			continue
		}
		callCtx, cancel := context.WithTimeout(ctx, s.timing.fetch)
		err := s.bus.Purge(callCtx, proto.BucketStream(proto.BucketHashes), claimsOf(s.source, g.Generation).prefix+">")
		cancel()
		if err != nil {
			return fmt.Errorf("purge the claims of generation %d: %w", g.Generation, err)
		}
		err = s.record.update(ctx, func(c *proto.Checkpoint) bool {
			c.Replaced = slices.DeleteFunc(c.Replaced, func(o proto.ReplacedGeneration) bool { return o.Generation == g.Generation })
			return true
		})
		if err != nil {
			return err
		}
		s.logger.Info("the claims of a replaced generation were removed", "generation", g.Generation)
	}
	return nil
}
