package telemetry

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// lineHandler writes [FormatText]. Derived handlers share the writer and its lock.
type lineHandler struct {
	out    *lineWriter
	level  slog.Leveler
	thread threadID
	prefix string // of the open groups, "a.b."
	attrs  []byte // of WithAttrs, formatted
}

// lineWriter makes one Write of each line, and one at a time.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func newLineHandler(w io.Writer, level slog.Leveler) *lineHandler {
	return &lineHandler{out: &lineWriter{w: w}, level: level, thread: mainThread}
}

// buffers are kept only up to this size: one huge record must not be held for ever.
const maxKept = 64 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	kept := buffers.Get().(*[]byte)
	line := (*kept)[:0]
	when := r.Time
	if when.IsZero() {
		// slog wants a zero time left out; in this format the columns would shift.
		when = time.Now()
	}
	line = when.Local().AppendFormat(line, lineTime)
	line = append(line, ' ')
	name := levelName(r.Level)
	line = append(line, "       "[len(name):]...)
	line = append(line, name...)
	line = append(line, ' ')
	line = appendEscaped(line, h.thread.process)
	line = append(line, "::"...)
	line = appendEscaped(line, h.thread.thread)
	line = append(line, " -> "...)
	line = appendEscaped(line, r.Message)
	line = append(line, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		line = appendAttr(line, h.prefix, a)
		return true
	})
	line = append(line, '\n')

	h.out.mu.Lock()
	_, err := h.out.w.Write(line)
	h.out.mu.Unlock()

	if cap(line) <= maxKept {
		*kept = line
		buffers.Put(kept)
	}
	return err
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	var rest []slog.Attr
	n.thread, rest = takeThread(attrs, h.thread)
	n.attrs = append([]byte(nil), h.attrs...)
	for _, a := range rest {
		n.attrs = appendAttr(n.attrs, h.prefix, a)
	}
	return &n
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.prefix += name + "."
	return &n
}
