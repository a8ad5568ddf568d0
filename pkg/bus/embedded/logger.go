package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"defenderiot/pkg/telemetry"
)

// quietAfter is how long the server says no error until the last ones are over.
const quietAfter = 10 * time.Minute

// logger hands the server's own lines to slog: warnings as they are, notices at debug level, and errors as one
// incident, since a stream that cannot be written says so again and again.
type logger struct {
	to     *slog.Logger
	errors *telemetry.Incident

	mu    sync.Mutex
	cause string    // the last fatal or error line: why the server did not start
	fails bool      // it was a fatal one
	last  time.Time // when the last error was
}

func newLogger(to *slog.Logger) *logger {
	return &logger{to: to, errors: telemetry.NewIncident(to, "bus server")}
}

func (l *logger) say(level slog.Level, format string, v []any) {
	l.to.Log(context.Background(), level, "bus server: "+fmt.Sprintf(format, v...))
}

func (l *logger) fail(fatal bool, line string) {
	l.mu.Lock()
	l.cause, l.fails, l.last = line, l.fails || fatal, time.Now()
	l.mu.Unlock()
	l.errors.Report(errors.New(line))
}

// begin forgets the reasons of the server before.
func (l *logger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause, l.fails = "", false
}

// given reports whether the server has given up.
func (l *logger) given() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fails
}

// settle ends the incident when it is over.
func (l *logger) settle() {
	l.mu.Lock()
	over := time.Since(l.last) > quietAfter
	l.mu.Unlock()
	if over {
		l.errors.Resolve()
	}
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
func (l *logger) Errorf(format string, v ...any) { l.fail(false, fmt.Sprintf(format, v...)) }

// Fatalf implements the server's Logger. The server calls it when it cannot start, and then simply
// returns; the line is kept for the error that Start gives.
func (l *logger) Fatalf(format string, v ...any) { l.fail(true, fmt.Sprintf(format, v...)) }

// Debugf implements the server's Logger.
func (l *logger) Debugf(string, ...any) {}

// Tracef implements the server's Logger.
func (l *logger) Tracef(string, ...any) {}
