package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"defenderiot/pkg/fault"
)

const (
	// summaryPeriod is the least time between two lines about the same failure.
	summaryPeriod = 10 * time.Minute
	// maxTexts bounds the different failures of one incident that get a line of their own.
	maxTexts = 16
)

// Incident is one thing that may fail again and again, such as a connection that is retried for ever. It is
// logged when it begins and when it takes another form, summed up at most every 10 minutes, and logged
// once more when it is over:
//
//	           Report: ERROR `<what> failed: <error>`
//	┌──────┐ ───────────────────────────────────────> ┌─────────┐ ─┐ Report: a text not seen before: as the first;
//	│ fine │                                          │ failing │  │ else counted, with a summary
//	└──────┘ <─────────────────────────────────────── └─────────┘ <┘ if the last line is 10 minutes old
//	  Resolve: INFO `<what> works again after <n> failures in <duration>`
//
// Texts are compared without what varies on each try: numbers, durations, addresses, ids. Codes count:
// 401 and 403, AADSTS7000215 and AADSTS7000222, are different failures. Failures that take turns are each
// logged once, and no more than 16 in one incident.
//
// While it lasts it is among the [Failures] of the logger's process. It has no goroutine: when nothing is reported,
// nothing is logged. It is safe for concurrent use.
type Incident struct {
	logger *slog.Logger
	what   string
	level  slog.Level
	now    func() time.Time
	shown  *Failures // of the process; nil for none

	mu       sync.Mutex
	failures int // 0: fine
	since    time.Time
	logged   time.Time
	texts    map[string]struct{}
}

// IncidentOption changes an [Incident] from its default.
type IncidentOption func(*Incident)

// IncidentLevel is the level of failures and summaries instead of ERROR.
func IncidentLevel(l slog.Level) IncidentOption { return func(i *Incident) { i.level = l } }

// IncidentClock is the clock instead of [time.Now].
func IncidentClock(now func() time.Time) IncidentOption { return func(i *Incident) { i.now = now } }

// NewIncident returns an incident that is fine. what names the thing in words that an operator
// understands, with its address: `The connection to collector-eu.devo.io:443`.
func NewIncident(logger *slog.Logger, what string, options ...IncidentOption) *Incident {
	i := &Incident{logger: logger, what: what, level: slog.LevelError, now: time.Now, texts: make(map[string]struct{}), shown: FailuresOf(logger)}
	for _, option := range options {
		option(i)
	}
	return i
}

// Report counts a failure and logs it if it is news; attrs are slog attributes of that line, and hint= is
// what [fault.Hint] says. A nil error and an orderly stop ([fault.IsShuttingDown]) are no failures.
func (i *Incident) Report(err error, attrs ...any) {
	if err == nil || fault.IsShuttingDown(err) {
		return
	}
	text := err.Error()
	// The lock is held while logging, so that the lines come in the order of the states.
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	i.failures++
	i.shown.Report(i, i.what, i.level, err)
	if i.failures == 1 {
		i.since = now
	}
	news := i.isNews(text)
	if !news && now.Sub(i.logged) < summaryPeriod {
		return
	}
	i.logged = now
	message := i.what + " failed: " + text
	if !news {
		message = fmt.Sprintf("%s is still failing, %d times since %s: %s", i.what, i.failures, i.since.Local().Format(lineTime), text)
	}
	// A copy: appending to the caller's slice could write into it.
	attrs = append([]any(nil), attrs...)
	if hint := fault.Hint(err); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	i.logger.Log(context.Background(), i.level, message, attrs...)
}

// isNews reports whether this incident has not logged the text yet, and remembers it.
func (i *Incident) isNews(text string) bool {
	key := normalise(text)
	if _, seen := i.texts[key]; seen || len(i.texts) >= maxTexts {
		return false
	}
	i.texts[key] = struct{}{}
	return true
}

// Resolve ends the incident: one line at INFO if there was one, else nothing. It is cheap enough to be
// called after every success.
func (i *Incident) Resolve() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.failures == 0 {
		return
	}
	noun := "failures"
	if i.failures == 1 {
		noun = "failure"
	}
	i.logger.Info(fmt.Sprintf("%s works again after %d %s in %s", i.what, i.failures, noun,
		i.now().Sub(i.since).Round(time.Millisecond)))
	i.failures = 0
	clear(i.texts)
	i.shown.Resolve(i)
}
