package fetcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
)

// setup gets a token and makes the test fetch until both succeed; false means that the lease or the
// program ended first. After a failure it waits 5^n seconds, at most half an hour, with jitter, or as
// long as the answer asked for.
func (f *Fetcher) setup(ctx context.Context, stop <-chan struct{}, clock *remoteClock) bool {
	var c complaint
	wait := f.timing.setupFirst
	for n := 1; ; n++ {
		err := f.tryOnce(ctx, stop, clock)
		if err == nil {
			c.over(f.logger, "the set-up succeeded")
			f.logger.Info(fmt.Sprintf("Successfully tested fetch for %s. Source is pullable.", resourcegraph.AlertType))
			return true
		}
		if ctx.Err() != nil || stopped(stop) {
			return false
		}
		f.setReady(err)
		f.metrics.setupFailures.Add(ctx, 1, f.metrics.labels)
		c.raise(f.logger, slog.LevelError, "The set-up failed and is retried", err)
		d := jittered(wait)
		if asked, ok := fault.Delay(err); ok {
			d = asked
		} else {
			wait = min(wait*5, f.timing.setupMost)
		}
		f.logger.Debug(fmt.Sprintf("Retrying collector setup: %d/∞", n))
		f.logger.Debug(fmt.Sprintf("Sleeping %d seconds before next retry", int(d.Seconds())))
		// A delay of zero means: try again at once; a floor keeps that from becoming a busy loop.
		if !sleep(ctx, stop, max(d, 100*time.Millisecond)) {
			return false
		}
	}
}

// tryOnce makes one attempt; its errors are SetupError 101 and 102.
func (f *Fetcher) tryOnce(ctx context.Context, stop <-chan struct{}, clock *remoteClock) error {
	ctx, cancel := untilStop(ctx, stop)
	defer cancel()
	ctx, cancelCall := context.WithTimeout(ctx, f.timing.fetch)
	defer cancelCall()
	if err := f.graph.Token(ctx); err != nil {
		return named(err, 101, fmt.Sprintf("Failed to fetch OAuth token from %s. Exception: %v.", cmp.Or(f.service.TokenEndpoint, "Microsoft Entra ID"), err))
	}
	// The test asks for what starts from now on: it proves table, scope and rights like any other
	// query, and cannot reach below the floor, which is not known yet.
	endpoint := cmp.Or(f.service.Endpoint, "Azure Resource Graph")
	q := resourcegraph.Query{
		Text:               resourcegraph.WindowQuery(f.wall().UTC(), time.Time{}),
		ManagementGroups:   f.service.ManagementGroups,
		AllowPartialScopes: f.service.AllowPartialScopes,
		Top:                1,
	}
	for _, scope := range f.scopes() {
		q.Subscriptions = scope.subscriptions
		page, err := f.graph.Page(ctx, q)
		if err != nil {
			return named(err, 102, fmt.Sprintf("Failed to fetch data from %s. Source is not pullable.", endpoint))
		}
		clock.observe(page.Date)
	}
	return nil
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

// named makes err the SetupError of the given code, unless it is one.
func named(err error, code int, reason string) error {
	var known *fault.Error
	if errors.As(err, &known) && known.Type == fault.TypeSetup {
		return err
	}
	return setupError{known: fault.Setup(code, "%s", reason).WithHint(fault.Hint(err)), cause: err}
}
