package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// mark is a reserved attribute that says what becomes of a logger's copies. It prints as nothing.
type mark int

const (
	markUncopied mark = iota + 1
	markShared
)

// LogValue is an empty group, which every handler leaves out.
func (mark) LogValue() slog.Value { return slog.GroupValue() }

// Uncopied returns a logger whose lines are never copied to Devo: those about sending the copies, which
// would otherwise cause new ones for ever, and those that come at intervals.
func Uncopied(logger *slog.Logger) *slog.Logger { return withMark(logger, markUncopied) }

// Shared returns a logger whose copies are marked as shared with Devo: the line of the start and that of the
// stop. Their tag has `global` instead of `local`.
func Shared(logger *slog.Logger) *slog.Logger { return withMark(logger, markShared) }

func withMark(logger *slog.Logger, m mark) *slog.Logger {
	return logger.With(slog.Attr{Value: slog.AnyValue(m)})
}

// copyHandler passes records on to the handler that writes the log, and copies those at info and above. What
// the log leaves out by its level is not copied either.
type copyHandler struct {
	next   slog.Handler
	copies *Copies
	thread threadID
	mark   mark
	prefix string // of the open groups
	attrs  []byte // of WithAttrs, formatted
}

func newCopyHandler(next slog.Handler, copies *Copies) *copyHandler {
	return &copyHandler{next: next, copies: copies, thread: mainThread}
}

func (h *copyHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *copyHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && h.mark != markUncopied {
		h.copies.add(h.copy(r))
	}
	return h.next.Handle(ctx, r)
}

func (h *copyHandler) copy(r slog.Record) Copy {
	text := append([]byte(r.Message), h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		text = appendAttr(text, h.prefix, a)
		return len(text) <= maxCopyText
	})
	when := r.Time
	if when.IsZero() {
		when = time.Now()
	}
	return Copy{
		Time: when, Level: strings.ToLower(levelName(r.Level)), Text: strings.ToValidUTF8(string(text), "\uFFFD"),
		Process: h.thread.process, Thread: h.thread.thread, Shared: h.mark == markShared,
	}
}

func (h *copyHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	var unmarked []slog.Attr
	for _, a := range attrs {
		if m, ok := a.Value.Any().(mark); ok {
			n.mark = m
		} else {
			unmarked = append(unmarked, a)
		}
	}
	n.next = h.next.WithAttrs(unmarked)
	var rest []slog.Attr
	n.thread, rest = takeThread(unmarked, h.thread)
	n.attrs = append([]byte(nil), h.attrs...)
	for _, a := range rest {
		n.attrs = appendAttr(n.attrs, h.prefix, a)
	}
	return &n
}

func (h *copyHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.next = h.next.WithGroup(name)
	n.prefix += name + "."
	return &n
}
