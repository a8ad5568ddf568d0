package telemetry

import "log/slog"

// The processes that lines of the known format name, whatever program writes them: an operator's searches hold for
// the one process and for separate programs alike.
const (
	MainProcess   = "MainProcess"
	InputProcess  = "InputProcess"
	OutputProcess = "OutputProcess"
)

// Fields are attributes that the message tells in words already, given as to [slog.Logger.Info]: [FormatJSON] has them as
// members of their own, [FormatText] leaves them out, so that a line which people know to the letter stays it.
func Fields(args ...any) slog.Attr {
	// A group without a key is inlined by every handler.
	return slog.Attr{Value: slog.AnyValue(fields(slog.Group("", args...).Value.Group()))}
}

// fields is the reserved attribute's type, which nobody else can make.
type fields []slog.Attr

// LogValue is what every handler prints but that of the text format.
func (f fields) LogValue() slog.Value { return slog.GroupValue(f...) }

// isFields tells the reserved attribute; asked before the value is resolved.
func isFields(a slog.Attr) bool {
	if a.Value.Kind() != slog.KindLogValuer {
		return false
	}
	_, ok := a.Value.Any().(fields)
	return ok
}
