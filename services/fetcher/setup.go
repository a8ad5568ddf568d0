package fetcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
)

// setup is the token and the test fetch before the first pull, at intervals, and after a failed pull. It belongs to
// one goroutine at a time.
//
//	          ┌──────────┐ token and test fetch ┌──────┐
//	start ──> │ to do    │─────────────────────>│ done │──┐ pulls
//	          └──────────┘                      └──────┘<─┘
//	          │ ^      ^   refresh interval over,   │
//	  failed  │ │ wait └────── or a pull failed ────┘
//	          v │
//	          5^n s, at most 30 min; 1 min if it passes by itself;
//	          what the answer asked for; cut short by a new secret
type setup struct {
	*Fetcher
	clock *remoteClock
	stop  <-chan struct{}

	done     time.Time // the last success, monotonic; zero: to do
	reason   string    // why it is to do, as people know it; may be empty
	waiting  string    // what the pulls say meanwhile
	failures complaint
}

// The known lines of a puller that waits for the set-up.
const (
	waitFirst = "Waiting until setup will be executed"
	waitAgain = "Waiting until setup thread will execute again"
)

// setupFailed stands before the few errors of a set-up that have no name of their own.
const setupFailed = "The set-up failed and is retried"

func (f *Fetcher) newSetup(stop <-chan struct{}, clock *remoteClock) *setup {
	return &setup{Fetcher: f, clock: clock, stop: stop, waiting: waitFirst, reason: "The token/header/authentication has not been created yet"}
}

// again makes the next ensure set up, after a pull has failed with err.
func (u *setup) again(err error) {
	u.done, u.reason = time.Time{}, ""
	var named *fault.Error
	if errors.As(err, &named) && (named.Type == fault.TypeSetup || named.Type == fault.TypeAPI && named.Code == 401) {
		u.reason = "The token/header/authentication is expired and it needs to be refreshed"
	}
}

// ensure sets up if that is due, and tries until it succeeds; false means that the lease or the program ended first.
func (u *setup) ensure(ctx context.Context) bool {
	if !u.done.IsZero() && (u.service.Refresh == 0 || time.Since(u.done) < u.service.Refresh) {
		return true
	}
	if u.reason != "" {
		u.setupLogger.Warn(u.reason)
		u.reason = ""
	}
	defer u.sayWaiting()()
	for n := 1; ; n++ {
		err := u.try(ctx)
		if err == nil {
			u.done, u.waiting = time.Now(), waitAgain
			failures := telemetry.Fields("failures", u.failures.forget())
			u.setupLogger.Info(fmt.Sprintf("Successfully tested fetch for %s. Source is pullable.", resourcegraph.AlertType))
			u.setupLogger.Info("Setup for module <IotPuller> has been successfully executed", failures)
			u.setReady(nil)
			return true
		}
		if ctx.Err() != nil || stopped(u.stop) {
			return false
		}
		u.setReady(err)
		u.metrics.fail(u.metrics.setupFailures, err)
		u.failures.raiseNamed(u.setupLogger, slog.LevelError, setupFailed, err)
		d := u.wait(n, err)
		u.setupLogger.Info(fmt.Sprintf("Retrying collector setup: %d/∞", n), telemetry.Fields("retry", n))
		u.setupLogger.Info(fmt.Sprintf("Sleeping %d seconds before next retry", int(d.Seconds())), telemetry.Fields("seconds", int(d.Seconds())))
		if !u.sleep(ctx, d) {
			return false
		}
	}
}

// sayWaiting repeats at intervals what the pulls wait for, until end is called. What began the wait has said it
// first. None of it is copied to Devo: it is one more line every 15 s for as long as a secret is wrong.
func (u *setup) sayWaiting() (end func()) {
	logger, text := telemetry.Uncopied(u.logger), u.waiting
	over := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for sleep(context.Background(), over, u.timing.waiting) {
			logger.Warn(text)
		}
	})
	return func() {
		close(over)
		group.Wait()
	}
}

// wait is how long after the n-th failure in a row the next attempt is made, in whole seconds.
func (u *setup) wait(n int, err error) time.Duration {
	if asked, ok := fault.Delay(err); ok {
		return max(time.Duration(math.Ceil(asked.Seconds()))*time.Second, time.Second)
	}
	most := u.timing.setupMost
	if passes(err) {
		most = u.timing.setupPassing
	}
	d := u.timing.setupBase
	for ; n > 1 && d < most; n-- {
		d *= 5
	}
	return min(d, most)
}

// sleep waits for d, or until there is a new secret or certificate to try; false means that the session ends.
func (u *setup) sleep(ctx context.Context, d time.Duration) bool {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		if !sleep(ctx, u.stop, min(left, u.timing.setupLook)) {
			return false
		}
		if u.graph.Renewed() {
			return true // the client logs it when it takes it up
		}
	}
}

// try makes one attempt; its errors are SetupError 101 and 102.
func (u *setup) try(ctx context.Context) error {
	ctx, cancel := untilStop(ctx, u.stop)
	defer cancel()
	limit := cmp.Or(u.service.SetupTimeout, u.timing.fetch)
	if err := u.ask(ctx, limit, u.graph.Token); err != nil {
		return named(err, 101, fmt.Sprintf("Failed to fetch OAuth token from %s. Exception: %v.", cmp.Or(u.service.TokenEndpoint, "Microsoft Entra ID"), err))
	}
	// The test asks for what starts from now on: it proves table, scope and rights like any other
	// query, and cannot reach below the floor, which is not known yet.
	q := resourcegraph.Query{
		Text:               resourcegraph.WindowQuery(u.wall().UTC(), time.Time{}),
		ManagementGroups:   u.service.ManagementGroups,
		AllowPartialScopes: u.service.AllowPartialScopes,
		Top:                1,
	}
	for _, scope := range u.scopes() {
		q.Subscriptions = scope.subscriptions
		err := u.ask(ctx, limit, func(ctx context.Context) error {
			page, err := u.graph.Page(ctx, q)
			if err == nil {
				u.clock.observe(page.Date)
			}
			return err
		})
		if err != nil {
			return NotPullable(cmp.Or(u.service.Endpoint, "Azure Resource Graph"), err)
		}
	}
	return nil
}

// ask does call under a deadline of its own, and again after the wait for as long as requests_limits hold it back:
// that is no failure.
func (f *Fetcher) ask(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	for {
		limited, cancel := context.WithTimeout(ctx, limit)
		err := call(limited)
		cancel()
		d, waits := fault.Delay(err)
		if !waits || !errors.Is(err, resourcegraph.ErrLimited) {
			return err
		}
		if !sleep(ctx, nil, max(d, time.Millisecond)) {
			return ctx.Err()
		}
	}
}

// setupError is a SetupError that keeps the class and the hint of what caused it.
type setupError struct {
	known *fault.Error
	cause error
}

func (e setupError) Error() string {
	if e.known.Code == 101 {
		return e.known.Error() // names the cause already
	}
	return fmt.Sprintf("%v (%v)", e.known, e.cause)
}

func (e setupError) Unwrap() []error { return []error{e.known, e.cause} }

// NotPullable is the SetupError 102 of a test fetch that failed with err, whose text stands behind in brackets; of
// one that found no token it is err itself.
func NotPullable(endpoint string, err error) error {
	return named(err, 102, fmt.Sprintf("Failed to fetch data from %s. Source is not pullable.", endpoint))
}

// named makes err the SetupError of the given code, unless it is one.
func named(err error, code int, reason string) error {
	var known *fault.Error
	if errors.As(err, &known) && known.Type == fault.TypeSetup {
		return err
	}
	return setupError{known: fault.Setup(code, "%s", reason).WithHint(fault.Hint(err)), cause: err}
}

// passes says that a failed set-up may succeed without anybody mending anything here: Azure or the network is in trouble,
// or a right is on its way. Then half an hour would be a long time to miss alerts for.
func passes(err error) bool {
	if errors.Is(err, resourcegraph.ErrTransient) {
		return true
	}
	var failed setupError
	if errors.As(err, &failed) {
		err = failed.cause
	}
	var known *fault.Error
	if !errors.As(err, &known) {
		return true // a deadline
	}
	// Of a refused right the principal's owner is told at once, and mends it or has mended it: an assignment takes
	// minutes to be in force everywhere. Unlike a wrong secret, asking locks nobody out.
	return known.Type == fault.TypePull || known.Type == fault.TypeAPI && (known.Code == 403 || known.Code == 429 || known.Code == 498)
}
