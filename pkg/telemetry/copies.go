package telemetry

import (
	"context"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/metric"
)

const (
	// maxCopies bounds the lines that wait to be taken.
	maxCopies = 1000
	// maxCopyText bounds the text of one, in bytes; a longer one is cut.
	maxCopyText = 8 << 10
)

// Copy is one line of the log.
type Copy struct {
	Time time.Time
	// Level is debug, info, warning or error.
	Level string
	// Text is the message and its attributes, as the text format has them; at most 8 KiB.
	Text string
	// Process and Thread are those of [WithThread].
	Process, Thread string
	// Shared: see [Shared].
	Shared bool
}

// Copies are the log's lines at info and above that wait to be sent to Devo. At most 1,000 wait; when more
// come, the oldest are dropped and counted, so a log that nobody takes costs at most 8 MiB. It is safe for
// concurrent use.
type Copies struct {
	mu      sync.Mutex
	lines   []Copy
	dropped int64
	ready   chan struct{} // holds one when lines wait
}

func newCopies() *Copies { return &Copies{ready: make(chan struct{}, 1)} }

// Ready has a value when lines may wait.
func (c *Copies) Ready() <-chan struct{} { return c.ready }

// Take removes the n oldest lines and returns them; fewer if fewer wait.
func (c *Copies) Take(n int) []Copy {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, len(c.lines))
	out := slices.Clone(c.lines[:n])
	c.lines = slices.Delete(c.lines, 0, n)
	if len(c.lines) > 0 {
		c.signal()
	}
	return out
}

// Dropped is how many lines were dropped since the start.
func (c *Copies) Dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

func (c *Copies) add(line Copy) {
	line.Text = cutText(line.Text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lines) == maxCopies {
		c.lines = slices.Delete(c.lines, 0, 1)
		c.dropped++
	}
	c.lines = append(c.lines, line)
	c.signal()
}

func (c *Copies) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// countDropped shows the dropped lines on /metrics.
func (t *Telemetry) countDropped() error {
	if t.Copies == nil {
		return nil
	}
	_, err := t.Meter.Int64ObservableCounter("collector_internal_dropped",
		metric.WithDescription("Lines of the log that were dropped before they could be stored for Devo."), metric.WithUnit("{line}"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(t.Copies.Dropped())
			return nil
		}))
	return err
}

func cutText(s string) string {
	if len(s) <= maxCopyText {
		return s
	}
	const mark = "…"
	end := maxCopyText - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
