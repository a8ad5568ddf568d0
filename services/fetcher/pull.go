package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
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

// fields are the figures of the statistics, for machines.
func (p *pull) fields() slog.Attr {
	return telemetry.Fields("pulling_id", p.id, "requests", p.requests.Load(), "received", p.received.Load(),
		"duplicates", p.duplicates.Load(), "sent", p.sent.Load())
}

// pullAll makes a steady pull each period until the session ends, each after the set-up that is due. A pull that
// took longer is followed at once; a failed one by the next period, or by the wait that the answer asked for.
func (s *session) pullAll(ctx context.Context, group *errgroup.Group) error {
	for s.setup.ensure(ctx) && ctx.Err() == nil && !stopped(s.stop) {
		begun := time.Now()
		if err := s.record.check(ctx); ending(ctx, err) {
			return err
		}
		if now := s.clock.now(); s.isBehind(now) {
			s.startBackfill(ctx, group, now)
		}
		p := s.newPull()
		s.logger.Info("Pull Started", telemetry.Fields("pulling_id", p.id))
		err := s.steady(ctx, p)
		elapsed := time.Since(begun)
		s.metrics.duration.Record(ctx, elapsed.Seconds(), s.metrics.labels)
		if ending(ctx, err) {
			s.sayInterrupted()
			return err
		}
		wait := s.service.Period - elapsed
		if err != nil {
			s.metrics.fail(s.metrics.failures, err)
			s.pullFailed(err)
			if d, ok := fault.Delay(err); ok {
				wait = d
			}
			wait = max(wait, time.Second)
		} else {
			s.pullFailures.over(s.logger, "the pull succeeded again")
			s.firstPullOnce.Do(func() { close(s.firstPull) })
			s.sayCompleted(p, elapsed, wait)
		}
		if wait > 0 && !s.pause(ctx, wait) {
			break
		}
	}
	s.sayInterrupted()
	return nil
}

// pullFailed logs a failed pull, once for each change of the failure, and has the set-up done before the next. A
// missing token is the set-up's failure, which would be told twice else.
func (s *session) pullFailed(err error) {
	s.setup.again(err)
	what, complaint, logger := "The pull failed and is repeated, nothing was skipped", &s.pullFailures, s.logger
	var known *fault.Error
	if errors.As(err, &known) && known.Type == fault.TypeSetup {
		what, complaint, logger = setupFailed, &s.setup.failures, s.setupLogger
	}
	if complaint.raiseNamed(logger, slog.LevelError, what, err) {
		s.logger.Warn(waitAgain)
	}
}

func (s *session) sayCompleted(p *pull, elapsed, wait time.Duration) {
	fields := telemetry.Fields("pulling_id", p.id, "elapsed_seconds", elapsed.Seconds(), "wait_seconds", max(wait, 0).Seconds())
	if wait > 0 {
		s.logger.Info(fmt.Sprintf("Data collection completed. Elapsed time: %.3f seconds. Waiting for %.3f second(s) until the next one", elapsed.Seconds(), wait.Seconds()), fields)
	} else {
		s.logger.Info(fmt.Sprintf("Elapsed time: %.3f seconds. Last retrieval took too much time, no wait will be applied in this loop", elapsed.Seconds()), fields)
	}
}

func (s *session) sayInterrupted() {
	if stopped(s.stop) {
		s.logger.Warn("Retrieving loop has been interrupted due to a controlled stopping action has been activated")
	}
}

// levelOf is the level of a line that is worth showing only if there is news.
func levelOf(news bool) slog.Level {
	if news {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// steady reads everything from the overlap before the position on, without an upper bound, and moves the
// position: after each acknowledged page and at the end.
func (s *session) steady(ctx context.Context, p *pull) error {
	s.mu.Lock()
	from := later(s.live.Add(-s.service.Overlap), s.floor)
	s.mu.Unlock()
	began := s.clock.now()
	s.logger.Info(fmt.Sprintf("Fetching all iotsecurityresources - %s records since %s", resourcegraph.AlertType, from.UTC().Format(sinceLayout)),
		telemetry.Fields("pulling_id", p.id, "since", from.UTC()))
	scopes := s.scopes()
	var total result
	for i, sc := range scopes {
		onPage := func(ctx context.Context, r result) error {
			if r.last && i == len(scopes)-1 {
				s.logger.Info("No skip_token returned. All records fetched.")
			}
			s.logger.Info("(Partial) "+p.statistics(), p.fields())
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
	s.logger.Info(p.statistics(), p.fields())
	s.summariseRules()
	s.logger.Info("The data is up to date!")
	return nil
}
