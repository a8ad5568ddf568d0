package telemetry

import (
	"context"
	"io"
	"log/slog"
)

// jsonHandler is slog's JSON with process and thread at the top level. These two may change on a derived
// logger, also within a group, which slog's own handler cannot undo: so what was derived is kept and
// applied anew to a handler that has the right thread.
type jsonHandler struct {
	base    slog.Handler // without attributes
	thread  threadID
	derived []func(slog.Handler) slog.Handler
	handler slog.Handler // base, thread, derived
}

func newJSONHandler(w io.Writer, level slog.Leveler) *jsonHandler {
	h := &jsonHandler{
		base:   slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: replaceJSON}),
		thread: mainThread,
	}
	h.handler = h.build()
	return h
}

func replaceJSON(groups []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindTime:
		if t := a.Value.Time(); len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String(a.Key, t.Local().Format(jsonTime))
		}
	case slog.KindDuration:
		// As in the text format; a bare number of nanoseconds is not recognised as such by people.
		return slog.String(a.Key, a.Value.Duration().String())
	case slog.KindAny:
		if l, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey {
			return slog.String(a.Key, levelName(l))
		}
	}
	return a
}

func (h *jsonHandler) build() slog.Handler {
	handler := h.base.WithAttrs(h.thread.attrs())
	for _, derive := range h.derived {
		handler = derive(handler)
	}
	return handler
}

func (h *jsonHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.base.Enabled(ctx, l)
}

func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.handler.Handle(ctx, r)
}

func (h *jsonHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	thread, rest := takeThread(attrs, h.thread)
	return h.with(thread, func(inner slog.Handler) slog.Handler { return inner.WithAttrs(rest) })
}

func (h *jsonHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(h.thread, func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}

func (h *jsonHandler) with(thread threadID, derive func(slog.Handler) slog.Handler) slog.Handler {
	n := &jsonHandler{base: h.base, thread: thread}
	n.derived = append(append(n.derived, h.derived...), derive)
	n.handler = n.build()
	return n
}
