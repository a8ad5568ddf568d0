package fetcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// Quota is the request quota of a principal as a client keeps it; *resourcegraph.Client has it.
type Quota interface {
	Principal() resourcegraph.Principal
	// Divide makes the client take one of so many parts of its share until the given moment, and then nothing.
	Divide(parts int, until time.Time)
	// Hold lets no request leave for d.
	Hold(d time.Duration)
}

// census counts the live leases of one principal, all processes together, and gives the client of an active fetcher its
// part of the quota. Nobody hands parts out: each counts for itself, and the counts need not agree at every moment. What
// keeps the sum within the quota are the times:
//
//	count begun ──good──> no request more       the holder of a lease counts every partCount; without a count that
//	     every partCount                        succeeds its part ends after good, and without a renewal of its lease
//	                                            so early that all has settled when a standby takes over
//	lease acquired ──good + settling──> first request
//	                                            by then everybody else has counted the new lease, or has stopped, and what
//	                                            was sent under the larger parts counts no more at Azure
//	lease gone ──settling──> not counted        what its holder has sent last counts no more
//	lease unmoved ──live──> not counted         its holder has given it up long before, and a standby would have taken it
//
// A lease that is taken over from a holder that died has been counted by all the others without a break, and its new holder,
// which has counted them while it stood by, need not wait. A holder that was paused has no part when it wakes up.
type census struct {
	*Fetcher
	lease *lease
	known map[string]*neighbour // leases of the same principal, by subject
	parts int                   // with this one's; 0: never counted
	told  int                   // of these in the log
	free  time.Time             // no request leaves before
	good  time.Time             // the last part is good until then

	fails, damage complaint
}

// neighbour is a lease as this process sees it, by its monotonic clock.
type neighbour struct {
	revision uint64
	moved    time.Time // when its revision was seen to move
	until    time.Time // it counts until then
}

// newCensus returns nil where nothing is to be divided.
func (f *Fetcher) newCensus(l *lease) *census {
	if f.quota == nil {
		return nil
	}
	return &census{Fetcher: f, lease: l, known: map[string]*neighbour{}}
}

// whileStandingBy counts until acquire returns.
func (c *census) whileStandingBy(ctx context.Context, acquire func() error) error {
	if c == nil {
		return acquire()
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for c.counted(ctx, false); sleep(ctx, nil, c.timing.partCount); {
			c.counted(ctx, false)
		}
	})
	defer watch.Wait()
	defer cancel()
	return acquire()
}

// enter makes the first division and holds requests back as long as the others may not have counted this lease; false means
// that ctx ended or stop closed.
func (c *census) enter(ctx context.Context, stop <-chan struct{}) bool {
	c.good = time.Now()
	for !c.divide(ctx) {
		if !sleep(ctx, stop, c.timing.poll) {
			return false
		}
	}
	var hold time.Duration
	switch {
	case c.parts > 1 && c.lease.origin != inherited:
		hold = c.timing.partGood + c.timing.partSettling
	case c.lease.origin == released:
		hold = c.timing.partSettling
	}
	if hold > 0 {
		c.free = time.Now().Add(hold)
		c.quota.Hold(hold)
	}
	return true
}

// awaitTurn waits until requests may leave, so that the wait counts towards the deadline of none; false means that ctx ended
// or stop closed. It returns at once where nothing is divided.
func (c *census) awaitTurn(ctx context.Context, stop <-chan struct{}) bool {
	if c == nil {
		return true
	}
	d := time.Until(c.free)
	return d <= 0 || sleep(ctx, stop, d)
}

// silence ends what was complained of: who goes on complains anew.
func (c *census) silence() {
	if c != nil {
		c.fails.forget()
		c.damage.forget()
	}
}

// keep divides until ctx ends.
func (c *census) keep(ctx context.Context) {
	for sleep(ctx, nil, c.timing.partCount) {
		c.divide(ctx)
	}
}

// divide counts and takes the part that follows; false means that it has learned nothing.
func (c *census) divide(ctx context.Context) bool {
	begun, renewed := time.Now(), c.lease.lastRenewal()
	// No request leaves since then; a server that is restarted is no error.
	if !c.counted(ctx, begun.After(c.good.Add(c.timing.partGood))) {
		return false
	}
	c.good = earlier(begun.Add(c.timing.partGood), renewed.Add(c.timing.expiry-c.timing.partSettling))
	c.quota.Divide(c.parts, c.good)
	if c.parts != c.told && (c.parts > 1 || c.told > 1) {
		c.logger.Info(fmt.Sprintf("The request quota of this principal is divided by %d active inputs", c.parts))
	}
	c.told = c.parts
	return true
}

// counted looks at all leases; false means that it has learned nothing. stopped says that requests have waited for it for long.
func (c *census) counted(ctx context.Context, stopped bool) bool {
	err := c.count(ctx)
	if err == nil {
		c.fails.over(c.logger, "the leases are counted again")
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	if fault.Hint(err) == "" {
		err = fault.WithHint(err, "the leases are read from the bus: is the nats-server up, and what does its log say? Requests go on by themselves")
	}
	if stopped {
		c.fails.raise(c.logger, slog.LevelError, "the leases of the principal cannot be counted, so no request is made", err)
	} else {
		c.fails.raise(c.logger, slog.LevelWarn, "the leases of the principal cannot be counted; without a count no request is made", err)
	}
	return false
}

// count looks at all leases. One that the bus cannot read may be of the same principal and alive, so it counts for as long as
// it is there: a fetcher that has it writes it anew within seconds.
func (c *census) count(ctx context.Context) error {
	own := proto.BucketSubject(proto.BucketCheckpoints, c.lease.key)
	least := c.lease.storedRevision()
	ctx, cancel := context.WithTimeout(ctx, c.timing.leaseCall)
	defer cancel()
	found, damaged, err := c.bus.LookupAll(ctx, proto.BucketStream(proto.BucketCheckpoints), proto.BucketSubject(proto.BucketCheckpoints, proto.LeaseKeys))
	if err != nil {
		return err
	}
	if found[own].Sequence < least {
		return errors.New("the answer is older than this fetcher's lease") // of a replica that lags behind, or the lease is lost
	}
	c.complainOf(damaged)
	now := time.Now()
	delete(found, own)
	for subject, stored := range found {
		var v leaseValue
		if json.Unmarshal(stored.Data, &v) == nil && !v.Principal.MayBe(c.lease.principal) {
			continue
		}
		n := c.known[subject]
		if n == nil {
			n = &neighbour{}
			c.known[subject] = n
		}
		if n.revision != stored.Sequence {
			n.revision, n.moved = stored.Sequence, now
		}
		n.until = n.moved.Add(c.timing.partLive)
	}
	for _, subject := range damaged {
		if subject == own { // while standing by
			continue
		}
		found[subject] = bus.Stored{}
		c.known[subject] = &neighbour{moved: now, until: now.Add(c.timing.partLive)}
	}
	parts := 1
	for subject, n := range c.known {
		if _, there := found[subject]; !there && n.until.After(now.Add(c.timing.partSettling)) {
			n.until = now.Add(c.timing.partSettling)
		}
		if n.until.After(now) {
			parts++
		} else if _, there := found[subject]; !there {
			delete(c.known, subject)
		}
	}
	c.parts = parts
	return nil
}

// complainOf tells of leases that cannot be read.
func (c *census) complainOf(damaged []string) {
	if len(damaged) == 0 {
		c.damage.over(c.logger, "all leases can be read again")
		return
	}
	slices.Sort(damaged)
	key := strings.TrimPrefix(damaged[0], proto.BucketSubject(proto.BucketCheckpoints, ""))
	err := fault.WithHint(fmt.Errorf("%w: %d leases, the first one is %s", bus.ErrDamaged, len(damaged), key),
		fmt.Sprintf("look at the disk of the nats-server. If no fetcher of that input runs any more, remove the lease as a user that may write the bucket: `nats kv del %s %s`", proto.BucketCheckpoints, key))
	c.damage.raise(c.logger, slog.LevelError, "leases cannot be read; each counts as one more active input of this principal, and makes this one slower", err)
}
