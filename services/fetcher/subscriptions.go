package fetcher

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// goneAfter is how many checks in a row must miss a subscription before it counts as gone, to be
// back-filled when it comes back. A shorter absence is covered by the lookback, and Resource Graph is
// known to forget things for a moment.
const goneAfter = 2

// readable asks which subscriptions of the scope the principal can read, sorted, in lower case.
func (f *Fetcher) readable(ctx context.Context, stop <-chan struct{}) ([]string, error) {
	ctx, cancel := untilStop(ctx, stop)
	defer cancel()
	var all []string
	for _, sc := range f.scopes() {
		err := f.ask(ctx, f.timing.fetch, func(ctx context.Context) error {
			found, err := f.graph.Subscriptions(ctx, sc.subscriptions, f.managementGroups(sc))
			if err == nil {
				all = append(all, found...)
			}
			return err
		})
		if err != nil && stopped(stop) {
			return nil, fault.ShuttingDown(err) // the stop has cut it off, which is no trouble of Azure's
		}
		if err != nil {
			return nil, fmt.Errorf("list the readable subscriptions: %w", err)
		}
	}
	return lowered(all), nil
}

// readableOrNone is for the begin of a generation. If it cannot be told, none count as seen and each is
// back-filled once they are.
func (f *Fetcher) readableOrNone(ctx context.Context, stop <-chan struct{}) []string {
	readable, err := f.readable(ctx, stop)
	if err != nil {
		f.logger.Warn("the readable subscriptions cannot be listed now; each is read from the start once they can", "error", err)
		return nil
	}
	return readable
}

// coverage compares what is readable with what is configured and with what was readable before. Resource
// Graph answers for the readable part of a scope without a word about the rest, so this is where a
// missing role assignment shows. What is newly readable is back-filled from the floor.
func (s *session) coverage(ctx context.Context, group *errgroup.Group) error {
	readable, err := s.readable(ctx, s.stop)
	if err != nil {
		return err
	}
	s.warnUnreadable(ctx, readable)
	seen := s.record.read().Subscriptions
	if err := s.forget(ctx, seen, readable); err != nil {
		return err
	}
	added := without(readable, seen)
	if len(added) == 0 || s.filling.Swap(true) {
		return nil
	}
	group.Go(func() error {
		defer s.filling.Store(false)
		return orderly(s.fill(ctx, added))
	})
	return nil
}

// warnUnreadable names configured subscriptions that cannot be read, once for each set of them.
func (s *session) warnUnreadable(ctx context.Context, readable []string) {
	unreadable := without(s.service.Subscriptions, readable)
	s.metrics.unreadable.Record(ctx, int64(len(unreadable)), s.metrics.labels)
	was := s.coverageState.Swap(strings.Join(unreadable, ", "))
	before, _ := was.(string)
	now := strings.Join(unreadable, ", ")
	switch {
	case now == before:
	case now == "":
		s.logger.Info("all configured subscriptions are readable")
	default:
		s.logger.Warn("some configured subscriptions cannot be read, and Azure leaves their alerts out without an error; grant Security Reader on them",
			"unreadable", now)
	}
	if len(readable) == 0 && len(s.service.Subscriptions) == 0 && !s.saidNothing.Swap(true) {
		s.logger.Log(ctx, slog.LevelWarn, "no subscription is readable at all; grant Security Reader to the principal")
	}
}

// forget takes subscriptions off the list of seen ones that have not been readable for a while.
func (s *session) forget(ctx context.Context, seen, readable []string) error {
	var gone []string
	for _, id := range without(seen, readable) {
		if s.missing[id]++; s.missing[id] >= goneAfter {
			gone = append(gone, id)
		}
	}
	for _, id := range readable {
		delete(s.missing, id)
	}
	if len(gone) == 0 {
		return nil
	}
	s.logger.Warn("subscriptions are not readable any more; if they come back they are read from the start time", "subscriptions", gone)
	for _, id := range gone {
		delete(s.missing, id)
	}
	return s.record.update(ctx, func(c *proto.Checkpoint) bool {
		c.Subscriptions = without(c.Subscriptions, gone)
		return true
	})
}

// fill reads newly readable subscriptions from the floor up to now, where the pulls have them already.
func (s *session) fill(ctx context.Context, added []string) error {
	s.logger.Info(fmt.Sprintf("%d subscriptions are newly readable and are fetched from %s on", len(added), s.floor.Format(sinceLayout)), "subscriptions", added[:min(len(added), 20)])
	for _, sc := range scopesOf(added) {
		if _, err := s.cover(ctx, []scope{sc}, s.floor, s.clock.now(), 2, nil); err != nil {
			return err
		}
		err := s.record.update(ctx, func(c *proto.Checkpoint) bool {
			c.Subscriptions = lowered(append(c.Subscriptions, sc.subscriptions...))
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// without returns the elements of all that are not in some, in order.
func without(all, some []string) []string {
	out := make([]string, 0, len(all))
	for _, id := range all {
		if !slices.Contains(some, id) {
			out = append(out, id)
		}
	}
	return out
}
