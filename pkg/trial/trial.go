package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
)

const (
	// crashes is how many fresh children a message must take down, alone, to be condemned.
	crashes = 2
	// patience is how long a child may take for one message, and for its start. It is generous: the machine may
	// be busy, and a service that waits renews its deliveries.
	patience = 15 * time.Second
	// idle is how long a child is kept for the next batch.
	idle = 10 * time.Second
	// startAgain is how long nothing is tried after a child could not be started.
	startAgain = time.Minute
)

// ErrCondemned is in the tree of the verdict on a message that took two children down.
var ErrCondemned = errors.New("two crashes")

// Trial tries messages with one kind of work. It has at most one child at a time, started when it is needed. It is
// safe for concurrent use; its callers wait for each other.
type Trial struct {
	name     string
	path     func() (string, error)
	patience time.Duration
	idle     time.Duration
	trouble  *telemetry.Incident

	mu     sync.Mutex
	child  *process
	timer  *time.Timer // ends an idle child
	failed time.Time   // when no child could be started
	closed bool
}

// New makes a trial of the work that [Enter] knows by name. It starts nothing.
func New(name string, logger *slog.Logger) *Trial {
	return &Trial{name: name, path: self, patience: patience, idle: idle,
		trouble: telemetry.NewIncident(logger, "trying redelivered messages of the "+name+" in a process of its own", telemetry.IncidentLevel(slog.LevelWarn))}
}

// Try returns a verdict for each message that is condemned, by its index: an error that wraps [ErrCondemned] and
// says how the children ended. A message takes at most 45 s. Without a child (the system forbids to start one,
// which is logged once) nothing is condemned. When ctx ends, Try returns at once with what it knows; the messages
// are not judged then, and the caller must leave them alone.
func (t *Trial) Try(ctx context.Context, option byte, messages [][]byte) map[int]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(messages) == 0 || t.closed || workOf(t.name) == nil || time.Since(t.failed) < startAgain {
		return nil
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	defer t.keep()
	var verdicts map[int]error
	for at := 0; at < len(messages); at++ {
		n, _, err := t.stream(ctx, option, messages[at:])
		if at += n; err == nil {
			break
		}
		if ctx.Err() == nil && !errors.Is(err, errStart) {
			err = t.alone(ctx, option, messages[at])
		}
		switch {
		case errors.Is(err, ErrCondemned):
			if verdicts == nil {
				verdicts = map[int]error{}
			}
			verdicts[at] = err
		case ctx.Err() != nil:
			return verdicts
		case err != nil:
			t.failed = time.Now()
			t.trouble.Report(fault.WithHint(fmt.Errorf("%w; a message that ends the process is not put aside until then", err),
				"let the program start itself: it needs /proc, and a process limit (pids, nproc) that leaves room for one more"))
			return verdicts
		}
	}
	t.trouble.Resolve()
	return verdicts
}

// alone tries one message in fresh children: nil if one of them lives.
func (t *Trial) alone(ctx context.Context, option byte, message []byte) error {
	for n := 1; ; n++ {
		_, end, err := t.stream(ctx, option, [][]byte{message})
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, errStart):
			return err
		case n == crashes:
			return fmt.Errorf("%w: it took %d processes of its own down, the last one with: %s", ErrCondemned, n, end)
		}
	}
}

// stream gives messages to the child; after an error there is none, and end says how it ended.
func (t *Trial) stream(ctx context.Context, option byte, messages [][]byte) (answered int, end string, err error) {
	if t.child == nil {
		path, err := t.path()
		if err != nil {
			return 0, "", fmt.Errorf("%w: %w", errStart, err)
		}
		if t.child, err = start(ctx, path, t.name, t.patience); err != nil {
			t.child = nil
			return 0, "", err
		}
	}
	answered, err = t.child.try(ctx, option, messages, t.patience)
	if err != nil {
		end = t.child.end()
		t.child = nil
	}
	return answered, end, err
}

// keep leaves the child for the next batch, for a while.
func (t *Trial) keep() {
	if t.child != nil {
		t.timer = time.AfterFunc(t.idle, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.drop()
		})
	}
}

func (t *Trial) drop() {
	if t.child != nil {
		t.child.end()
		t.child = nil
	}
}

// Close ends the child. Nothing is tried after it.
func (t *Trial) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.drop()
}
