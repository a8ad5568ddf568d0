package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// The log formats.
const (
	// FormatText is the line format that people know, `2026-11-22T19:04:06.175 WARNING OutputProcess::MainThread -> message`:
	// local time with milliseconds, the level right-aligned in 7 columns, process and thread, the message;
	// then the attributes as ` key=value`, quoted where needed.
	FormatText = "text"
	// FormatJSON is one JSON object a line with time, level, msg, process, thread, and the attributes.
	FormatJSON = "json"
)

const (
	lineTime = "2006-01-02T15:04:05.000"
	// jsonTime is the same moment in the same digits, with the offset that a machine needs.
	jsonTime = lineTime + "Z07:00"
)

// NewLogger returns a logger of the given format ("" is [FormatText]) which writes each record as exactly
// one line with one Write, also when used from several goroutines. Line breaks and other control characters
// are escaped. Values print as their own type says, so a secret.String is masked. The error names a format
// that does not exist.
//
// Most programs take [Telemetry.Logger] instead; this is for what logs before there is one.
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	switch format {
	case FormatText, "":
		return slog.New(newLineHandler(w, level)), nil
	case FormatJSON:
		return slog.New(newJSONHandler(w, level)), nil
	default:
		return nil, fmt.Errorf("telemetry: unknown log format %q: want %s or %s", format, FormatText, FormatJSON)
	}
}

// WithThread returns a logger whose lines carry process and thread in the place where people look for
// them, for example WithThread(l, InputProcess, "IotPuller(defender_for_iot,23453,iot_security_alerts,predefined)").
// The last call wins; without any it is MainProcess::MainThread. Attributes of logger are kept.
func WithThread(logger *slog.Logger, process, thread string) *slog.Logger {
	// The empty key makes other handlers print the two as plain attributes.
	return logger.With(slog.Attr{Value: slog.AnyValue(threadID{process, thread})})
}

// threadID is the reserved attribute; the type, which nobody else can make, tells it from others.
type threadID struct{ process, thread string }

var mainThread = threadID{MainProcess, "MainThread"}

// LogValue is what handlers print that do not know the type.
func (t threadID) LogValue() slog.Value { return slog.GroupValue(t.attrs()...) }

func (t threadID) attrs() []slog.Attr {
	return []slog.Attr{slog.String("process", t.process), slog.String("thread", t.thread)}
}

// takeThread splits the reserved attribute off; the last one wins.
func takeThread(attrs []slog.Attr, current threadID) (threadID, []slog.Attr) {
	rest := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindLogValuer {
			if id, ok := a.Value.Any().(threadID); ok {
				current = id
				continue
			}
		}
		rest = append(rest, a)
	}
	return current, rest
}

// levelName gives the four names that people filter by; levels between two have the lower one's name.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARNING"
	default:
		return "ERROR"
	}
}
