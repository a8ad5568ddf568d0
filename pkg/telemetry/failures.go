package telemetry

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"defenderiot/pkg/fault"
)

const (
	// failureAge is how long a failure is kept that nobody reports again and nobody ends, because what failed was
	// given up.
	failureAge = time.Hour
	// maxFailures bounds those that are kept.
	maxFailures = 64
)

// Failure is something that fails now.
type Failure struct {
	// What fails, in an operator's words.
	What string
	// Type and Code name the error as the log does; Type is empty for one that has no name.
	Type string
	Code int
	// Text is the last error, Hint what to do about it; Hint may be empty.
	Text, Hint string
	// Warning: nothing is held up by it.
	Warning bool
	// Since is when it began, Last when it was last reported, Count how often.
	Since, Last time.Time
	Count       int
}

// Failures are what fails in a process at the moment: each [Incident] puts itself there while it lasts. They can be
// reached from every logger of [Telemetry.Logger]. A nil value keeps nothing. Safe for concurrent use.
type Failures struct {
	now func() time.Time

	mu   sync.Mutex
	open map[any]*Failure
}

func newFailures() *Failures { return &Failures{now: time.Now, open: map[any]*Failure{}} }

// FailuresOf returns the failures of the process that logger belongs to, nil for a logger of no [Telemetry].
func FailuresOf(logger *slog.Logger) *Failures {
	if h, ok := logger.Handler().(*failureHandler); ok {
		return h.failures
	}
	return nil
}

// Report notes a failure under key, which names it until [Failures.Resolve]; the key is compared with ==.
func (f *Failures) Report(key any, what string, level slog.Level, err error) {
	if f == nil || err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	f.prune(now)
	one := f.open[key]
	if one == nil {
		if len(f.open) >= maxFailures {
			return
		}
		one = &Failure{Since: now}
		f.open[key] = one
	}
	one.What, one.Text, one.Hint, one.Warning = what, err.Error(), fault.Hint(err), level < slog.LevelError
	one.Type, one.Code = "", 0
	var named *fault.Error
	if errors.As(err, &named) {
		one.Type, one.Code = named.Type, named.Code
	}
	one.Last = now
	one.Count++
}

// Resolve ends the failure under key, if there is one.
func (f *Failures) Resolve(key any) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, key)
}

// List returns what fails now, errors before warnings and the oldest first. What nobody has reported for an hour is
// not among it.
func (f *Failures) List() []Failure {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prune(f.now())
	list := make([]Failure, 0, len(f.open))
	for _, one := range f.open {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Failure) int {
		if a.Warning != b.Warning {
			if b.Warning {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.What, b.What))
	})
	return list
}

func (f *Failures) prune(now time.Time) {
	for key, one := range f.open {
		if now.Sub(one.Last) > failureAge {
			delete(f.open, key)
		}
	}
}

// failureHandler carries the failures along with a logger; it changes nothing of what is logged.
type failureHandler struct {
	next     slog.Handler
	failures *Failures
}

func (h *failureHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

func (h *failureHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.next.Handle(ctx, r)
}

func (h *failureHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &failureHandler{h.next.WithAttrs(attrs), h.failures}
}

func (h *failureHandler) WithGroup(name string) slog.Handler {
	return &failureHandler{h.next.WithGroup(name), h.failures}
}
