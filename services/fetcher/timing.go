package fetcher

import (
	"time"

	"defenderiot/pkg/resourcegraph"
)

// timing collects the intervals, so that tests can shorten them.
type timing struct {
	renew, expiry, giveUp, poll, leaseCall time.Duration // lease
	// parts of the principal's quota: how often they are counted, how long a count is good for, how long a lease that does
	// not move counts, and until what was sent under a part is forgotten
	partCount, partGood, partLive, partSettling time.Duration

	call, fetch, grace                  time.Duration // deadlines: bucket, Resource Graph, orderly stop
	lookback, nullStarts, coverage      time.Duration // how often
	sweepDepth, purgeAfter, recordRetry time.Duration
	behind, window                      time.Duration // back-fill
	setupBase, setupPassing, setupMost  time.Duration // waits between set-ups
	waiting                             time.Duration // between two lines that say that the pulls wait for the set-up
	setupLook                           time.Duration // how often a new credential is looked for meanwhile
}

func defaultTiming() timing {
	return timing{
		// A little below 15 s, so that a standby is active within 15 s of the last renewal.
		renew: 5 * time.Second, expiry: 14 * time.Second, giveUp: 10 * time.Second,
		poll: 500 * time.Millisecond, leaseCall: 3 * time.Second,
		// Live is beyond the time in which a standby takes a lease over, and the calls that this takes.
		partCount: 2 * time.Second, partGood: 7 * time.Second, partLive: 30 * time.Second, partSettling: resourcegraph.QuotaSettles,
		call: 10 * time.Second, fetch: 5 * time.Minute, grace: 3 * time.Second,
		lookback: 30 * time.Minute, nullStarts: 10 * time.Minute, coverage: time.Hour,
		sweepDepth: 90 * 24 * time.Hour, purgeAfter: 24 * time.Hour, recordRetry: time.Minute,
		behind: 48 * time.Hour, window: 24 * time.Hour,
		setupBase: 5 * time.Second, setupPassing: 25 * time.Second, setupMost: 1800 * time.Second, setupLook: 5 * time.Second,
		waiting: 15 * time.Second,
	}
}
