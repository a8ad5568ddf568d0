package fetcher

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"defenderiot/proto"
)

const (
	// leastWindow is where halving ends.
	leastWindow = time.Second
	// repairScans bounds the scans that one short window may cost, so that a service that truncates
	// everything is not asked a million times.
	repairScans = 128
	// maxRescan bounds the windows that wait to be read again; the daily sweep covers what falls out.
	maxRescan = 100
)

// repair reads windows that came back short again in halves.
type repair struct {
	s     *session
	p     *pull
	req   request
	upper time.Time // where an open window counts as ending
	scans int
	found result
	lost  []proto.Window // still short at the least window, or not reached
	count []int64        // of each lost window: the rows that are missing, 0 if that cannot be told
}

// read scans req; rows that are missing from the answer are looked for in halves of its window, down to
// one second, which is tried twice. What is missing even then is an alarm and is put on the list of
// windows to read again: the pull goes on, since waiting would lose what comes after.
func (s *session) read(ctx context.Context, p *pull, req request, acked func(context.Context, result) error) (result, error) {
	res, err := s.scan(ctx, p, req, acked)
	if err != nil || !res.short || s.knownShort(req.window, res.missing) {
		return res, err
	}
	s.metrics.short.Add(ctx, 1, s.metrics.labels)
	if req.nullStarts {
		s.alarm(ctx, nil)
		return res, nil
	}
	r := &repair{s: s, p: p, req: req, upper: s.clock.now(), scans: repairScans}
	if err := r.halves(ctx, req.window); err != nil {
		return res, err
	}
	res.merge(r.found)
	if len(r.lost) > 0 && s.survey != nil {
		s.survey.short += len(r.lost)
		return res, nil
	}
	if len(r.lost) > 0 {
		s.alarm(ctx, r.lost)
		return res, s.remember(ctx, r.lost, r.count)
	}
	return res, nil
}

// span is a window as a comparable key: nanoseconds since the epoch.
type span struct{ from, to int64 }

func spanOf(w proto.Window) span { return span{w.From.UnixNano(), w.To.UnixNano()} }

// knownShort says that as many rows of w are missing as are known to be from the windows on the list, so
// that halving would find nothing else. The list is tried again before each lookback, so another row
// that goes missing meanwhile is found then.
func (s *session) knownShort(w proto.Window, missing int64) bool {
	if missing == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for known, n := range s.short {
		if known.to > w.From.UnixNano() && (w.To.IsZero() || known.from < w.To.UnixNano()) {
			missing -= n
		}
	}
	return missing <= 0
}

// halves reads both halves of a short window.
func (r *repair) halves(ctx context.Context, w proto.Window) error {
	from := later(w.From, r.s.floor)
	end := w.To
	if end.IsZero() {
		end = later(r.upper, from)
	}
	if end.Sub(from) <= leastWindow {
		var missing int64
		for range 2 {
			res, err := r.scan(ctx, w)
			if !res.short || err != nil {
				return err
			}
			missing = res.missing
		}
		r.lose(proto.Window{From: from, To: later(end, from.Add(leastWindow))}, missing)
		return nil
	}
	middle := from.Add(end.Sub(from) / 2)
	if second := middle.Truncate(leastWindow); second.After(from) {
		middle = second // the same leaves whatever the window began with
	} else {
		middle = middle.Truncate(tick)
	}
	for _, half := range []proto.Window{{From: from, To: middle}, {From: middle, To: w.To}} {
		if r.scans <= 0 {
			to := half.To
			if to.IsZero() {
				to = end
			}
			r.lose(proto.Window{From: half.From, To: to}, 0)
			continue
		}
		res, err := r.scan(ctx, half)
		if err != nil {
			return err
		}
		if res.short {
			if err := r.halves(ctx, half); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *repair) lose(w proto.Window, missing int64) {
	r.lost, r.count = append(r.lost, w), append(r.count, missing)
}

func (r *repair) scan(ctx context.Context, w proto.Window) (result, error) {
	r.scans--
	req := r.req
	req.window = w
	res, err := r.s.scan(ctx, r.p, req, nil)
	if err == nil {
		r.found.merge(res)
	}
	return res, err
}

// alarm says once which rows Resource Graph keeps back.
func (s *session) alarm(ctx context.Context, lost []proto.Window) {
	s.metrics.lost.Add(ctx, int64(max(1, len(lost))), s.metrics.labels)
	where := "rows without a start time"
	if len(lost) > 0 {
		var b strings.Builder
		for i, w := range lost[:min(len(lost), 5)] {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s to %s", w.From.Format(sinceLayout), w.To.Format(sinceLayout))
		}
		where = b.String()
	}
	s.shortReads.raise(s.logger, slog.LevelError, "Resource Graph returns fewer rows than it counts; these windows are read again at each lookback",
		fmt.Errorf("%d windows, first: %s", max(1, len(lost)), where))
}

// remember puts windows on the record's list of those to read again.
func (s *session) remember(ctx context.Context, lost []proto.Window, missing []int64) error {
	s.mu.Lock()
	if len(s.short)+len(lost) > maxRescan {
		clear(s.short)
	}
	for i, w := range lost {
		s.short[spanOf(w)] = missing[i]
	}
	s.mu.Unlock()
	return s.record.update(ctx, func(c *proto.Checkpoint) bool {
		changed := false
		for _, w := range lost {
			if !slices.ContainsFunc(c.Rescan, func(o proto.Window) bool { return covers(o, w) }) {
				c.Rescan = append(c.Rescan, w)
				changed = true
			}
		}
		if over := len(c.Rescan) - maxRescan; over > 0 {
			c.Rescan = slices.Delete(c.Rescan, 0, over)
		}
		return changed
	})
}

func covers(o, w proto.Window) bool { return !w.From.Before(o.From) && !w.To.After(o.To) }

// rescan reads the listed windows again and takes off the list what came back whole.
func (s *session) rescan(ctx context.Context) error {
	for _, w := range s.record.read().Rescan {
		whole := true
		p := s.newPull()
		for _, sc := range s.scopes() {
			res, err := s.scan(ctx, p, request{window: w, scope: sc, background: true}, nil)
			if err != nil {
				return err
			}
			whole = whole && !res.short
		}
		if !whole {
			continue
		}
		s.mu.Lock()
		delete(s.short, spanOf(w))
		s.mu.Unlock()
		err := s.record.update(ctx, func(c *proto.Checkpoint) bool {
			n := len(c.Rescan)
			c.Rescan = slices.DeleteFunc(c.Rescan, func(o proto.Window) bool { return o.From.Equal(w.From) && o.To.Equal(w.To) })
			return len(c.Rescan) != n
		})
		if err != nil {
			return err
		}
	}
	if len(s.record.read().Rescan) == 0 {
		s.shortReads.over(s.logger, "the windows that came back short are whole")
	}
	return nil
}
