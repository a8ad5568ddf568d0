package trial

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
)

const (
	// crashes is how many fresh children a message must take down, alone, to be condemned. attempts is how many it
	// is given for that where some end without it.
	crashes  = 2
	attempts = 4
	// patience is how long a child may take for its start, and for one message, for which it has a second more for
	// each MiB. It is generous: the machine may be busy, and a service that waits renews its deliveries.
	patience = 15 * time.Second
	// busy is the processor time after which a child without an answer is at fault itself: measured, 27 MB take 1 s,
	// compressed.
	busy = 3 * time.Second
	// idle is how long a child is kept for the next batch.
	idle = 10 * time.Second
	// startAgain is how long nothing is tried after a child could not be started.
	startAgain = time.Minute
	// maxHelpless is how many messages in a row may be unjudged before children count as impossible here: if
	// something ends all of them, every redelivery would wait.
	maxHelpless = 3
	// maxWithheld bounds the messages that are known not to be taken untried.
	maxWithheld = 10_000
)

// Errors in the tree of a verdict.
var (
	// ErrCondemned: the message took two children down.
	ErrCondemned = errors.New("two crashes")
	// ErrUnjudged: a child ended under the message, and it is not known whether by it: the child was ended from
	// outside, had too little memory, or no other one could be started. The message must not be taken, and waits.
	ErrUnjudged = errors.New("not judged")
)

const endedHint = "see what ends processes here: a limit of memory or of processes that leaves too little room, or whoever stops the service's processes one by one"

// Trial tries messages with one kind of work. It has at most one child at a time, started when it is needed. It is
// safe for concurrent use; its callers wait for each other.
type Trial struct {
	name     string
	path     func() (string, error)
	patience time.Duration
	busy     time.Duration
	idle     time.Duration
	trouble  *telemetry.Incident
	unjudged *telemetry.Incident
	seed     maphash.Seed

	mu       sync.Mutex
	child    *process
	timer    *time.Timer // ends an idle child
	failed   time.Time   // when no child could be started
	withheld map[uint64]struct{}
	helpless int // messages that were unjudged since a child has answered
	closed   bool
}

// New makes a trial of the work that [Enter] knows by name. It starts nothing.
func New(name string, logger *slog.Logger) *Trial {
	return &Trial{name: name, path: self, patience: patience, busy: busy, idle: idle, seed: maphash.MakeSeed(), withheld: map[uint64]struct{}{},
		trouble:  telemetry.NewIncident(logger, "trying redelivered messages of the "+name+" in a process of its own", telemetry.IncidentLevel(slog.LevelWarn)),
		unjudged: telemetry.NewIncident(logger, "finding out whether a message ends the "+name, telemetry.IncidentLevel(slog.LevelWarn))}
}

// Try returns a verdict for each message that must not be taken, by its index: an error that wraps [ErrCondemned]
// or [ErrUnjudged] and says how the children ended. A message takes at most 75 s, one of 30 MB 4 minutes. Without a child (the system forbids
// to start one, which is logged once) only what one has ended under before has a verdict. When ctx ends, Try returns
// at once with what it knows; the messages are not judged then, and the caller must leave them alone.
func (t *Trial) Try(ctx context.Context, option byte, messages [][]byte) map[int]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(messages) == 0 || t.closed || workOf(t.name) == nil {
		return nil
	}
	verdicts := map[int]error{}
	if time.Since(t.failed) < startAgain {
		t.refuse(verdicts, messages, 0)
		return verdicts
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	defer t.keep()
	for at := 0; at < len(messages); at++ {
		n, _, err := t.stream(ctx, option, messages[at:])
		if at += n; err == nil {
			break
		}
		if ctx.Err() == nil && !errors.Is(err, errStart) {
			if err = t.alone(ctx, option, messages[at]); ctx.Err() == nil {
				t.settle(messages[at], err)
				if err != nil {
					verdicts[at] = err
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return verdicts
		case errors.Is(err, errStart), errors.Is(err, errHelpless):
			t.failed = time.Now()
			hint := "let the program start itself: it needs /proc, and a process limit (pids, nproc) that leaves room for one more"
			if errors.Is(err, errHelpless) {
				hint = endedHint
			}
			t.trouble.Report(fault.WithHint(fmt.Errorf("%w; a message that ends the process is not put aside until then", err), hint))
			t.refuse(verdicts, messages, at)
			return verdicts
		}
	}
	t.trouble.Resolve()
	return verdicts
}

// alone tries one message in fresh children: nil if one of them lives.
func (t *Trial) alone(ctx context.Context, option byte, message []byte) error {
	taken := 0
	var last ending
	for range attempts {
		_, end, err := t.stream(ctx, option, [][]byte{message})
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.Is(err, errStart):
			return fmt.Errorf("%w: %w", ErrUnjudged, err)
		}
		if last = end; !end.crash {
			continue
		}
		if taken++; taken == crashes {
			return fmt.Errorf("%w: it took %d processes of its own down, the last one with: %s", ErrCondemned, taken, end.how)
		}
	}
	err := fmt.Errorf("%w: %d processes of its own ended, not by what it holds, the last one with: %s", ErrUnjudged, attempts, last.how)
	if t.helpless++; t.helpless >= maxHelpless {
		err = fmt.Errorf("%w: %w", errHelpless, err)
	}
	return err
}

// settle notes what has become of a message under which a child has ended.
func (t *Trial) settle(message []byte, verdict error) {
	name := maphash.Bytes(t.seed, message)
	if !errors.Is(verdict, ErrUnjudged) {
		if delete(t.withheld, name); len(t.withheld) == 0 {
			t.unjudged.Resolve()
		}
		return
	}
	if len(t.withheld) < maxWithheld {
		t.withheld[name] = struct{}{}
	}
	t.unjudged.Report(fault.WithHint(fmt.Errorf("%w; the message waits and is tried again", verdict), endedHint))
}

// refuse gives verdicts on what must not be taken although it cannot be tried, from an index on.
func (t *Trial) refuse(verdicts map[int]error, messages [][]byte, from int) {
	if len(t.withheld) == 0 {
		return
	}
	for i := from; i < len(messages); i++ {
		if _, known := t.withheld[maphash.Bytes(t.seed, messages[i])]; known && verdicts[i] == nil {
			verdicts[i] = fmt.Errorf("%w: %w", ErrUnjudged, errStart)
		}
	}
}

// stream gives messages to the child; after an error there is none, and end says how it ended.
func (t *Trial) stream(ctx context.Context, option byte, messages [][]byte) (answered int, end ending, err error) {
	if t.child == nil {
		path, err := t.path()
		if err != nil {
			return 0, ending{}, fmt.Errorf("%w: %w", errStart, err)
		}
		if t.child, err = start(ctx, path, t.name, t.patience, t.busy); err != nil {
			t.child = nil
			return 0, ending{}, err
		}
	}
	answered, err = t.child.try(ctx, option, messages, t.patience)
	if answered > 0 {
		t.helpless = 0
	}
	if err != nil {
		end = t.child.end(len(messages[answered]))
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
		t.child.end(0)
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
