package fetcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// sinceLayout is how log lines print a point in event time.
const sinceLayout = "2006-01-02T15:04:05.000000Z"

// pull is one reading of the source under one pulling id, with its statistics.
type pull struct {
	id    int64     // epoch milliseconds, @devo_pulling_id
	start time.Time // the same as an instant: the date in the frames
	begun time.Time // monotonic

	requests, received, duplicates, sent atomic.Int64
}

func (f *Fetcher) newPull() *pull {
	id := f.nextPullID()
	return &pull{id: id, start: time.UnixMilli(id).UTC(), begun: time.Now()}
}

// statistics is the known line's text.
func (p *pull) statistics() string {
	sent := p.sent.Load()
	rate := 0.0
	if elapsed := time.Since(p.begun).Seconds(); elapsed > 0 {
		rate = float64(sent) / elapsed
	}
	return fmt.Sprintf("Statistics for this pull cycle (@devo_pulling_id=%d):Number of requests made: %d; Number of events received: %d; "+
		"Number of duplicated events filtered out: %d; Number of events generated and sent: %d; Average of events per second: %.3f.",
		p.id, p.requests.Load(), p.received.Load(), p.duplicates.Load(), sent, rate)
}

func (p *pull) partial(logger *slog.Logger) { logger.Info("(Partial) " + p.statistics()) }

// pullAll makes a steady pull each period until the session ends. A pull that took longer is followed
// at once; a failed one by the next period, or by the wait that the answer asked for.
func (s *session) pullAll(ctx context.Context, group *errgroup.Group) error {
	first := true
	for ctx.Err() == nil && !stopped(s.stop) {
		begun := time.Now()
		if err := s.record.check(ctx); ending(ctx, err) {
			return err
		}
		if now := s.clock.now(); s.isBehind(now) {
			s.startBackfill(ctx, group, now)
		}
		p := s.newPull()
		err := s.steady(ctx, p, &first)
		elapsed := time.Since(begun)
		s.metrics.duration.Record(ctx, elapsed.Seconds(), s.metrics.labels)
		if ending(ctx, err) {
			return err
		}
		wait := s.service.Period - elapsed
		if err != nil {
			s.metrics.failures.Add(ctx, 1, s.metrics.labels)
			s.pullFailures.raise(s.logger, slog.LevelError, "The pull failed and is repeated, nothing was skipped", err)
			if d, ok := fault.Delay(err); ok {
				wait = d
			}
			wait = max(wait, time.Second)
		} else {
			s.pullFailures.over(s.logger, "the pull succeeded again")
			s.firstPullOnce.Do(func() { close(s.firstPull) })
			level := levelOf(p.received.Load() > 0)
			if wait > 0 {
				s.logger.Log(ctx, level, fmt.Sprintf("Data collection completed. Elapsed time: %.3f seconds. Waiting for %.3f second(s) until the next one", elapsed.Seconds(), wait.Seconds()))
			} else {
				s.logger.Log(ctx, level, fmt.Sprintf("Elapsed time: %.3f seconds. Last retrieval took too much time, no wait will be applied in this loop", elapsed.Seconds()))
			}
		}
		if wait > 0 && !s.pause(ctx, wait) {
			break
		}
	}
	return nil
}

// levelOf is the level of a line that an idle pull need not show.
func levelOf(news bool) slog.Level {
	if news {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// steady reads everything from the overlap before the position on, without an upper bound, and moves the
// position: after each acknowledged page and at the end.
func (s *session) steady(ctx context.Context, p *pull, first *bool) error {
	s.mu.Lock()
	from := later(s.live.Add(-s.service.Overlap), s.floor)
	s.mu.Unlock()
	began := s.clock.now()
	scopes := s.scopes()
	said := false
	var total result
	for _, sc := range scopes {
		onPage := func(ctx context.Context, r result) error {
			if !said && (r.rows > 0 || *first) {
				said = true
				s.announce(from)
			}
			// With several scopes only the end of the last one tells what has been read.
			if len(scopes) > 1 || r.unsure {
				return nil
			}
			to, ids := r.reached()
			return s.advance(ctx, to, ids)
		}
		r, err := s.read(ctx, p, request{window: proto.Window{From: from}, scope: sc}, onPage)
		if err != nil {
			return err
		}
		total.merge(r)
	}
	to, ids := total.reached()
	if err := s.advance(ctx, to, ids); err != nil {
		return err
	}
	s.mu.Lock()
	s.complete = later(s.complete, began)
	if s.first.begun.IsZero() {
		s.first.from, s.first.begun = from, p.begun
	}
	s.mu.Unlock()
	s.metrics.reached(s.clock.now(), total.newest)
	level := levelOf(p.received.Load() > 0 || *first)
	s.summarise(ctx, p, level)
	s.logger.Log(ctx, level, "The data is up to date!")
	*first = false
	return nil
}

func (s *session) announce(from time.Time) {
	s.logger.Info(fmt.Sprintf("Fetching all iotsecurityresources - %s records since %s", resourcegraph.AlertType, from.UTC().Format(sinceLayout)))
}

func (s *session) summarise(ctx context.Context, p *pull, level slog.Level) {
	s.logger.Log(ctx, level, "No skip_token returned. All records fetched.")
	s.logger.Log(ctx, level, p.statistics())
	s.summariseRules()
}
