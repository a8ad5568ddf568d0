package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"

	"defenderiot/pkg/fault"
)

// complaint logs a repeating failure once for each change of it and counts the rest. The zero value is
// ready; it is safe for concurrent use.
type complaint struct {
	mu    sync.Mutex
	kind  string
	count int
}

// variable is what differs between two texts of the same failure: numbers, timestamps, ids.
var variable = regexp.MustCompile(`[0-9a-fA-F-]*[0-9][0-9a-fA-F.:-]*`)

// kindOf names a failure without what changes from one time to the next.
func kindOf(err error) string {
	var named *fault.Error
	if errors.As(err, &named) {
		return fmt.Sprintf("%s %d", named.Type, named.Code)
	}
	return variable.ReplaceAllString(err.Error(), "#")
}

// raise logs what and err unless the same was logged last.
func (c *complaint) raise(logger *slog.Logger, level slog.Level, what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	kind := what + kindOf(err)
	if kind == c.kind {
		return
	}
	c.kind = kind
	attrs := []any{"error", err}
	if hint := fault.Hint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	if c.count > 1 {
		attrs = append(attrs, "failures", c.count)
	}
	logger.Log(context.Background(), level, what, attrs...)
}

// over logs what, with the number of failures, if there was a complaint.
func (c *complaint) over(logger *slog.Logger, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count > 0 {
		logger.Info(what, "failures", c.count)
	}
	c.kind, c.count = "", 0
}
