package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// logger hands the server's own lines to slog: warnings and errors as they are, notices at debug level.
type logger struct {
	to *slog.Logger

	mu    sync.Mutex
	cause string // the last fatal or error line: why the server did not start
}

func (l *logger) say(level slog.Level, format string, v []any) {
	l.to.Log(context.Background(), level, "bus server: "+fmt.Sprintf(format, v...))
}

func (l *logger) remember(format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause = fmt.Sprintf(format, v...)
}

func (l *logger) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == "" {
		return "no reason given"
	}
	return l.cause
}

// Noticef implements the server's Logger.
func (l *logger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// expected are warnings about choices that are made here on purpose: a token that is new at each start and
// whatever Azure can answer in one message.
var expected = []string{"Plaintext passwords detected", "Maximum payloads over"}

// Warnf implements the server's Logger.
func (l *logger) Warnf(format string, v ...any) {
	for _, e := range expected {
		if strings.Contains(format, e) {
			return
		}
	}
	l.say(slog.LevelWarn, format, v)
}

// Errorf implements the server's Logger.
func (l *logger) Errorf(format string, v ...any) {
	l.remember(format, v)
	l.say(slog.LevelError, format, v)
}

// Fatalf implements the server's Logger. The server calls it when it cannot start, and then simply
// returns; the line is kept for the error that Start gives.
func (l *logger) Fatalf(format string, v ...any) {
	l.remember(format, v)
	l.say(slog.LevelError, format, v)
}

// Debugf implements the server's Logger.
func (l *logger) Debugf(string, ...any) {}

// Tracef implements the server's Logger.
func (l *logger) Tracef(string, ...any) {}
