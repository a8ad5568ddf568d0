package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
)

// complaint logs a repeating failure once for each change of it and counts the rest. The zero value is
// ready; it is safe for concurrent use.
type complaint struct {
	mu    sync.Mutex
	kind  string
	count int
	shown *telemetry.Failures // where it is told of while it lasts
}

// variable is what differs between two texts of the same failure: numbers, timestamps, ids.
var variable = regexp.MustCompile(`[0-9a-fA-F-]*[0-9][0-9a-fA-F.:-]*`)

// kindOf names a failure without what changes from one time to the next.
func kindOf(err error) string {
	var named *fault.Error
	if errors.As(err, &named) {
		// The hint tells apart what has one code for several causes, such as SetupError 101.
		return fmt.Sprintf("%s %d %s", named.Type, named.Code, fault.Hint(err))
	}
	return variable.ReplaceAllString(err.Error(), "#")
}

// raise logs what and err unless the same was logged last.
func (c *complaint) raise(logger *slog.Logger, level slog.Level, what string, err error) {
	c.log(logger, level, what, what, err, "error", err)
}

// raiseNamed is raise for errors that people know by type and code: such a one is the whole message, as they search
// for it. It reports whether it has logged.
func (c *complaint) raiseNamed(logger *slog.Logger, level slog.Level, what string, err error) bool {
	var known *fault.Error
	if errors.As(err, &known) {
		return c.log(logger, level, what, err.Error(), err, telemetry.Fields("type", known.Type, "code", known.Code))
	}
	return c.log(logger, level, what, what, err, "error", err)
}

func (c *complaint) log(logger *slog.Logger, level slog.Level, what, message string, err error, attrs ...any) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	c.shown = telemetry.FailuresOf(logger)
	c.shown.Report(c, what, level, err)
	kind := what + kindOf(err)
	if kind == c.kind {
		return false
	}
	c.kind = kind
	if hint := fault.Hint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	if c.count > 1 {
		attrs = append(attrs, "failures", c.count)
	}
	logger.Log(context.Background(), level, message, attrs...)
	return true
}

// forget ends the complaint without a line and returns the number of failures.
func (c *complaint) forget() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count
	c.kind, c.count = "", 0
	c.shown.Resolve(c)
	return n
}

// over logs what, with the number of failures, if there was a complaint.
func (c *complaint) over(logger *slog.Logger, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count > 0 {
		logger.Info(what, "failures", c.count)
	}
	c.kind, c.count = "", 0
	c.shown.Resolve(c)
}
