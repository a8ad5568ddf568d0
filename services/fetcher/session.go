package fetcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/seen"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// session is one generation's fetching under one lease, from reading the record to the lease's end or
// the record's change.
type session struct {
	*Fetcher
	record *record
	setup  *setup
	clock  *remoteClock
	stop   <-chan struct{} // closed for an orderly stop: fetch nothing more
	epoch  uint64          // the lease's

	generation uint64
	floor      time.Time
	rawSubject string
	claims     claims
	survey     *survey   // not nil: only look
	known      *claiming // the phase that claims what was sent before; nil in the ordinary phase
	// recent are hashes of rows that RAW has acknowledged in this session, about 5 MiB of them, so that the overlap
	// is not stored again and again while dedup waits. Forgetting one costs a duplicate in RAW.
	recent seen.Set[[22]byte]

	// Once a pull has gone through the lookback may start; before, both would read the same rows.
	firstPull     chan struct{}
	firstPullOnce sync.Once
	backfilling   atomic.Bool  // the record's position belongs to the back-fill
	filling       atomic.Bool  // newly readable subscriptions are being read
	migrating     atomic.Bool  // claims are being made anew under another deduplication mode
	saidNothing   atomic.Bool  // that no subscription is readable
	coverageState atomic.Value // string: the unreadable subscriptions last warned of

	mu       sync.Mutex
	live     time.Time      // position of the steady pull
	liveIDs  []string       // identities of rows at live
	short    map[span]int64 // rows missing from windows on the list of short ones, as last seen
	complete time.Time      // when, by the remote clock, the last whole steady pull began
	first    struct {       // the first whole steady pull
		from  time.Time // what it read from
		begun time.Time // monotonic
	}
	missing map[string]int // coverage checks in a row that missed a subscription; used by one goroutine

	pullFailures, fillFailures, fullRaw, shortReads, slowClaims complaint
}

// unreadable is the error of a record that this program must not touch.
func unreadable(key string, err error) error {
	hint := "`collector checkpoint show` prints what is there; `collector checkpoint reset --to TIME` goes on from the newest earlier revision that is readable"
	if errors.Is(err, proto.ErrNewerMajor) {
		hint = "a newer version of this program wrote it: run that version; `collector checkpoint show` prints it"
	}
	return fault.PrePull(1, "The record %s is not readable and was left as it is: %v", key, err).WithHint(hint)
}

// open reads, creates or renews the record and makes a session of it.
func (f *Fetcher) open(ctx context.Context, setup *setup, kv keyValue, l *lease) (*session, error) {
	f.logger.Info(f.puller + " Starting the execution of pre_pull()")
	r := newRecord(kv, proto.RecordKey(f.source), l, f.timing)
	f.logger.Info("Reading persisted data")
	found, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	if !found {
		f.logger.Info("Data retrieved from the persistence: None")
		f.logger.Warn("Persistence will be overridden due to the retrieved state is empty")
		f.sayCorrections()
		// The readable subscriptions are asked for before anything is read: one that becomes readable
		// in between is then found to be new later, instead of being missed.
		c := f.fresh(setup.clock.now(), f.readableOrNone(ctx, setup.stop))
		f.sayChange("None", text(c))
		if err := r.create(ctx, c); err != nil {
			return nil, err
		}
		f.logger.Warn("Persistence has been updated successfully")
	} else {
		f.logger.Info("Data retrieved from the persistence: " + text(r.read()))
		f.sayCorrections()
		if err := f.compare(ctx, setup.stop, r, setup.clock); err != nil {
			return nil, err
		}
	}
	f.logger.Info(f.puller + " Finalizing the execution of pre_pull()")
	return f.newSession(r, setup, l.epoch), nil
}

// sayCorrections names the steps that bring a record up to date. Reading it has done the first, and comparing it
// does the others: people know the lines.
func (f *Fetcher) sayCorrections() {
	f.logger.Info("Running the persistence upgrade steps")
	f.logger.Info("Running the persistence corrections steps")
	f.logger.Info("Running the persistence corrections steps")
}

func (f *Fetcher) sayChange(old, next string) {
	f.logger.Warn(fmt.Sprintf("Some changes have been detected and the persistence needs to be updated. Previous content: %s. New content: %s", old, next))
	f.logger.Info("Updating the persistence")
}

// compare opens a new generation if the configured start time is another one than the recorded.
func (f *Fetcher) compare(ctx context.Context, stop <-chan struct{}, r *record, clock *remoteClock) error {
	old := r.read()
	if f.sameStart(&old) {
		f.logger.Info("No changes were detected in the persistence")
		return r.update(ctx, func(c *proto.Checkpoint) bool {
			if c.Deduplication != "" {
				return false
			}
			// Whoever wrote it did not know modes; from now on a change of the mode is noticed.
			c.Deduplication = f.service.Deduplication
			return true
		})
	}
	readable := f.readableOrNone(ctx, stop)
	next := clone(old)
	next.Replaced = append(next.Replaced, proto.ReplacedGeneration{Generation: old.Generation, ReplacedAt: clock.now()})
	next.Generation++
	f.begin(&next, clock.now(), readable)
	f.sayChange(text(old), text(next))
	if err := r.update(ctx, func(c *proto.Checkpoint) bool { *c = next; return true }); err != nil {
		return err
	}
	f.logger.Warn("Persistence has been updated successfully")
	return nil
}

func (f *Fetcher) newSession(r *record, setup *setup, epoch uint64) *session {
	c := r.read()
	s := &session{
		Fetcher: f, record: r, setup: setup, clock: setup.clock, stop: setup.stop, epoch: epoch,
		generation: c.Generation, floor: ceilTick(c.Floor),
		rawSubject: proto.RawSubject(f.source),
		claims:     claimsOf(f.source, c.Generation),
		firstPull:  make(chan struct{}),
		live:       later(c.LastEventTime, c.Floor), liveIDs: c.LastIDs,
		missing: map[string]int{}, short: map[span]int64{},
	}
	s.migrating.Store(c.Deduplication != f.service.Deduplication)
	s.metrics.at(s.live)
	return s
}

// run does everything that an active fetcher does. It returns when ctx ends, stop closes (nil), or the
// record or lease is no longer this session's; all goroutines have ended by then.
func (s *session) run(ctx context.Context) error {
	defer s.silence()
	s.logger.Info(fmt.Sprintf("Starting data collection every %d seconds", int(s.service.Period.Seconds())),
		telemetry.Fields("period_seconds", int(s.service.Period.Seconds())))
	if s.migrating.Load() || s.record.read().Claiming != nil {
		if err := s.awaitDedup(ctx); err != nil {
			return orderly(err)
		}
	}
	if err := s.claimKnown(ctx); err != nil {
		return orderly(err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if now := s.clock.now(); s.isBehind(now) {
		s.startBackfill(ctx, group, now)
	}
	if s.migrating.Load() {
		group.Go(func() error { return orderly(s.migrate(ctx)) })
	}
	group.Go(func() error { return orderly(s.pullAll(ctx, group)) })
	group.Go(func() error { return orderly(s.maintain(ctx, group)) })
	return group.Wait()
}

// silence ends what this session has complained of: who goes on complains anew.
func (s *session) silence() {
	for _, c := range []*complaint{&s.pullFailures, &s.fillFailures, &s.fullRaw, &s.shortReads, &s.slowClaims} {
		c.forget()
	}
}

// isBehind says whether so much is unread that it is fetched in windows: the position, and the last
// whole pull of this session, lie further back than a pull should reach.
func (s *session) isBehind(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.backfilling.Load() && now.Sub(later(s.live, s.complete)) > s.timing.behind
}

// advance moves the position to to, once everything before it is acknowledged; it never moves back. ids
// are identities of rows that start at exactly to.
func (s *session) advance(ctx context.Context, to time.Time, ids []string) error {
	s.mu.Lock()
	if to.After(s.live) {
		s.live, s.liveIDs = to, ids
	}
	to, ids = s.live, s.liveIDs
	s.mu.Unlock()
	if s.backfilling.Load() {
		return nil // the record waits below until the gap is closed
	}
	return s.moveRecord(ctx, to, ids)
}

func (s *session) moveRecord(ctx context.Context, to time.Time, ids []string) error {
	err := s.record.update(ctx, func(c *proto.Checkpoint) bool {
		if !to.After(c.LastEventTime) {
			return false
		}
		c.LastEventTime, c.LastIDs = to, slices.Clone(ids)
		if s.hidden.id {
			c.LastIDs = nil
		}
		return true
	})
	if err != nil {
		return err
	}
	faultpoint.Hit(faultpoint.CheckpointMoved)
	s.metrics.at(s.record.read().LastEventTime)
	return nil
}

// pause waits for d; false means that the session ends.
func (s *session) pause(ctx context.Context, d time.Duration) bool { return sleep(ctx, s.stop, d) }

// untilStop returns a context that also ends when stop closes: what runs under it fetches and may be
// broken off. What stores runs under the lease's context and gets the grace.
func untilStop(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	fetching, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-stop:
			cancel()
		case <-fetching.Done():
		}
	}()
	return fetching, func() { cancel(); <-done }
}

// orderly makes nil of an orderly stop, so that one task's end does not cut off another's grace.
func orderly(err error) error {
	if fault.IsShuttingDown(err) {
		return nil
	}
	return err
}
