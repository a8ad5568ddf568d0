package sender

import (
	"context"
	"fmt"
	"io"
	"sync"

	"defenderiot/pkg/devo"
)

// link is what a lane writes on: a connection to Devo, or the console.
type link interface {
	// Write writes all of p and returns the link's offset behind it.
	Write(ctx context.Context, p []byte) (end int64, err error)
	// HalfClose ends the link and says what that proves about everything written on it.
	HalfClose(ctx context.Context) (devo.Proof, error)
	// Gone is closed when the link is of no more use.
	Gone() <-chan struct{}
	// Close ends the link without a proof.
	Close() error
}

// kernelLink is a link whose peer's TCP acknowledgements can be read, as an unproved output needs.
type kernelLink interface {
	link
	Acked() (offset int64, ok bool)
	Undisturbed() bool
	Await(ctx context.Context) (devo.Proof, error)
}

// console is the link of the outputs console and stdout. There is nothing behind it that could lose what
// it took, so its proof is that every write returned.
type console struct {
	mu     *sync.Mutex // all consoles of the process share the writer
	w      io.Writer
	end    int64
	failed error
	gone   chan struct{}
}

var consoleMu sync.Mutex

func newConsole(w io.Writer) *console {
	return &console{mu: &consoleMu, w: w, gone: make(chan struct{})}
}

// Write implements link.
func (c *console) Write(_ context.Context, p []byte) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.w.Write(p)
	c.end += int64(n)
	if err != nil && c.failed == nil {
		c.failed = fmt.Errorf("write to the console: %w", err)
		close(c.gone)
	}
	return c.end, c.failed
}

// HalfClose implements link.
func (c *console) HalfClose(context.Context) (devo.Proof, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return devo.Broken, c.failed
	}
	return devo.Confirmed, nil
}

// Gone implements link.
func (c *console) Gone() <-chan struct{} { return c.gone }

// Close implements link.
func (c *console) Close() error { return nil }
