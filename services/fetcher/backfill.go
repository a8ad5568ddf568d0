package fetcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

const (
	// backfillWorkers read windows at the same time; the quota is shared with the steady pull.
	backfillWorkers = 4
	// A window is halved from maxWindowRows on and doubled below minWindowRows.
	minWindowRows, maxWindowRows = 2_000, 20_000
	shortestWindow               = time.Minute
	longestWindow                = 16 * 24 * time.Hour
	// failedWait is the longest wait before a failed window is tried again.
	failedWait = time.Minute
)

// coverage reads [from, to) in windows, in parallel, each until it succeeds.
//
//	from                                                                to
//	 |--done--|--done--|--reading--|--done--|--reading--|- - not begun - -|
//	                   ^ low: everything below it is acknowledged   ^ next
type coverage struct {
	s      *session
	scopes []scope
	to     time.Time
	onLow  func(ctx context.Context, low time.Time) error // may be nil
	report gate                                           // marks are reported one at a time

	mu    sync.Mutex
	next  time.Time
	width time.Duration
	open  []proto.Window     // begun and not below low, in order
	done  map[time.Time]bool // of those, by From
	rows  int64
}

// cover reads [from, to) with the given number of workers; onLow is told up to where all is
// acknowledged, one call at a time. Failed windows are repeated until the session ends, so its errors are those of ending.
func (s *session) cover(ctx context.Context, scopes []scope, from, to time.Time, workers int, onLow func(context.Context, time.Time) error) (int64, error) {
	c := &coverage{s: s, scopes: scopes, to: to, onLow: onLow, report: newGate(), next: later(from, s.floor), width: s.timing.window, done: map[time.Time]bool{}}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error { return c.work(ctx) })
	}
	err := group.Wait()
	return c.rows, err
}

func (c *coverage) take() (proto.Window, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.next.Before(c.to) {
		return proto.Window{}, false
	}
	w := proto.Window{From: c.next, To: earlier(c.next.Add(c.width), c.to)}
	c.next = w.To
	c.open = append(c.open, w)
	return w, true
}

func (c *coverage) work(ctx context.Context) error {
	for {
		w, ok := c.take()
		if !ok {
			return nil
		}
		rows, err := c.read(ctx, w)
		if err != nil {
			return err
		}
		if err := c.finish(ctx, w, rows); err != nil {
			return err
		}
	}
}

// read reads one window until it succeeds.
func (c *coverage) read(ctx context.Context, w proto.Window) (int64, error) {
	s := c.s
	for wait := time.Second; ; wait = min(2*wait, failedWait) {
		p := s.newPull()
		rows := int64(0)
		var err error
		for _, sc := range c.scopes {
			var res result
			if res, err = s.read(ctx, p, request{window: w, scope: sc, background: true}, nil); err != nil {
				break
			}
			rows += res.rows
		}
		if err == nil {
			s.fillFailures.over(s.logger, "windows can be read again")
			s.logger.Log(ctx, levelOf(p.sent.Load() > 0), fmt.Sprintf("The window from %s to %s has been read: %d records, %d of them sent",
				w.From.UTC().Format(sinceLayout), w.To.UTC().Format(sinceLayout), p.received.Load(), p.sent.Load()), p.fields())
			return rows, nil
		}
		if ending(ctx, err) {
			return 0, err
		}
		s.fillFailures.raise(s.logger, slog.LevelError, "reading a window failed and is repeated", err)
		d := jittered(wait)
		if asked, ok := fault.Delay(err); ok {
			d = max(asked, 100*time.Millisecond)
		}
		if !s.pause(ctx, d) {
			return 0, fault.ShuttingDown(err)
		}
	}
}

// finish notes a window as read, adapts the width and reports a new low-water mark.
func (c *coverage) finish(ctx context.Context, w proto.Window, rows int64) error {
	low := c.note(w, rows)
	if low.IsZero() || c.onLow == nil {
		return nil
	}
	if err := c.report.enter(ctx); err != nil {
		return err
	}
	defer c.report.leave()
	return c.onLow(ctx, low)
}

// note returns the new low-water mark, or the zero time if w moved none.
func (c *coverage) note(w proto.Window, rows int64) (low time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows += rows
	switch {
	case rows >= maxWindowRows:
		c.width = max(c.width/2, shortestWindow)
	case rows < minWindowRows:
		c.width = min(c.width*2, longestWindow)
	}
	c.done[w.From] = true
	for len(c.open) > 0 && c.done[c.open[0].From] {
		low = c.open[0].To
		delete(c.done, c.open[0].From)
		c.open = c.open[1:]
	}
	return low
}

// startBackfill closes the gap between the position and now in windows, beside the steady pull, which
// goes on from now. Until the gap is closed the record's position is the back-fill's low-water mark, so
// a crash at any moment repeats windows and skips none.
func (s *session) startBackfill(ctx context.Context, group *errgroup.Group, now time.Time) {
	s.mu.Lock()
	from := later(s.live, s.floor)
	to := later(now.Add(-s.service.Overlap), from)
	s.live, s.liveIDs = to, nil
	s.backfilling.Store(true)
	s.mu.Unlock()
	s.logger.Info(fmt.Sprintf("Fetching from %s in windows beside the current records", from.Format(sinceLayout)))
	group.Go(func() error {
		begun := time.Now()
		// The overlap before the gap is read again as at every pull.
		rows, err := s.cover(ctx, s.scopes(), from.Add(-s.service.Overlap), to, backfillWorkers, func(ctx context.Context, low time.Time) error {
			return s.moveRecord(ctx, low, nil)
		})
		if err != nil {
			return orderly(err)
		}
		s.mu.Lock()
		s.backfilling.Store(false)
		live, ids := s.live, s.liveIDs
		s.mu.Unlock()
		s.logger.Info(fmt.Sprintf("The windows up to %s are fetched: %d records in %.3f seconds", to.Format(sinceLayout), rows, time.Since(begun).Seconds()))
		return s.moveRecord(ctx, live, ids)
	})
}
