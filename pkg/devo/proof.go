package devo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Proof is what the end of a connection says about everything that was written on it.
type Proof uint8

const (
	// Unanswered: the peer has not answered the half-close yet, and nothing is wrong. Nothing is proved.
	// The connection can be kept, watched ([Conn.Undisturbed]) and asked again ([Conn.Await]).
	Unanswered Proof = iota
	// Confirmed: the peer's program has read every byte.
	Confirmed
	// ConfirmedWithoutNotify is Confirmed for a TLS peer that sent its FIN without a close_notify before
	// it. The FIN is the proof; the missing close_notify is only bad manners (RFC 5425 section 4.4), unless the
	// peer has sent it on other connections: then it may have been stopped.
	ConfirmedWithoutNotify
	// Broken: the peer ended first, reset the connection or did not take every byte, or a write failed.
	// Any part of what was written may be lost, and all of it may have arrived.
	Broken
)

// String returns the name as it is used in logs and metrics.
func (p Proof) String() string {
	switch p {
	case Unanswered:
		return "unanswered"
	case Confirmed:
		return "confirmed"
	case ConfirmedWithoutNotify:
		return "confirmed_without_notify"
	case Broken:
		return "broken"
	}
	return fmt.Sprintf("proof(%d)", uint8(p))
}

// Delivered reports whether everything written was read by the peer's program.
func (p Proof) Delivered() bool { return p == Confirmed || p == ConfirmedWithoutNotify }

// errNotHalfClosed is a fault of the caller.
var errNotHalfClosed = errors.New("the connection was not half-closed")

// HalfClose ends our half of the connection (close_notify over TLS, then FIN) and waits within ctx for
// the peer's answer, as [Conn.Await] does. It first waits for a running Write; later Writes fail. Our own
// end is given up when the peer takes nothing of it for 15 s, and goes on when ctx ends earlier. Called again, it only waits.
func (c *Conn) HalfClose(ctx context.Context) (Proof, error) {
	c.mu.Lock()
	if !c.closing && !c.settled {
		// Set before anything is sent: a peer may answer close_notify with its FIN before ours is out.
		c.closing = true
		c.tasks.Go(c.sendEnd)
	}
	c.mu.Unlock()
	return c.Await(ctx)
}

// Await waits within ctx for the peer's answer to the half-close. The error is nil when the proof is
// Confirmed or ConfirmedWithoutNotify; with Unanswered it wraps ctx's, with Broken it is [Conn.Err].
// It can be called any number of times.
func (c *Conn) Await(ctx context.Context) (Proof, error) {
	c.mu.Lock()
	begun := c.closing || c.settled
	c.mu.Unlock()
	if !begun {
		return Unanswered, errNotHalfClosed
	}
	select {
	case <-c.gone:
	default:
		select {
		case <-c.gone:
		case <-ctx.Done():
			return Unanswered, fmt.Errorf("%s has not answered the half-close: %w", c.name, ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.proof, fmt.Errorf("connection to %s: %w", c.name, c.cause)
	}
	return c.proof, nil
}

// sendEnd sends our end of both layers.
func (c *Conn) sendEnd() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.raw.limit(time.Time{})
	if c.tls != nil {
		// Ends the TLS layer only; TCP stays open.
		if err := c.tls.CloseWrite(); err != nil {
			c.writeFailed(err)
			return
		}
	}
	half, ok := halfCloser(c.raw.Conn)
	if !ok {
		return // no FIN, no proof: the peer's end settles it as broken
	}
	if err := half.CloseWrite(); err != nil {
		c.writeFailed(err)
		return
	}
	c.mu.Lock()
	c.ourEnd = true
	both := c.theirEnd
	c.mu.Unlock()
	if both {
		c.judge()
	}
}

// peerNotified notes the peer's close_notify. Before our own it is the peer's wish to end; what it has
// read by then is unknown.
func (c *Conn) peerNotified() {
	c.mu.Lock()
	c.notified = true
	early := !c.closing
	c.mu.Unlock()
	if early {
		c.settle(Broken, Classify(io.EOF))
	}
}

// peerEnded notes the peer's FIN.
func (c *Conn) peerEnded() {
	_, canEnd := halfCloser(c.raw.Conn)
	c.mu.Lock()
	c.theirEnd = true
	early := !c.closing
	both := c.ourEnd
	c.mu.Unlock()
	switch {
	case early:
		c.settle(Broken, Classify(io.EOF))
	case !canEnd:
		c.settle(Broken, failure(NoHalfClose, nil, "use a direct connection or a proxy that passes the end of a stream on",
			"the connection to the endpoint cannot be half-closed, so nothing proves what arrived"))
	case both:
		c.judge()
	}
}

// halfCloser returns what can send a FIN on conn. A TLS tunnel's CloseWrite ends the tunnel's TLS only.
func halfCloser(conn net.Conn) (interface{ CloseWrite() error }, bool) {
	if _, tunnel := conn.(*tls.Conn); tunnel {
		return nil, false
	}
	half, ok := conn.(interface{ CloseWrite() error })
	return half, ok
}

// judge gives the verdict once both FINs are out: it needs every write to have succeeded, every byte
// acknowledged and no error left on the socket.
func (c *Conn) judge() {
	acked, known := c.Acked()
	written := c.raw.written.Load()
	c.mu.Lock()
	proof := Confirmed
	if c.tls != nil && !c.notified {
		proof = ConfirmedWithoutNotify
	}
	c.mu.Unlock()

	if err := c.kernel.pending(); err != nil {
		c.settle(Broken, Classify(err))
		return
	}
	if c.raw.failed.Load() || known && acked < written {
		c.settle(Broken, failure(Unacknowledged, nil, hintRefusedSilently,
			"the endpoint ended the connection with %d of %d bytes acknowledged", acked, written))
		return
	}
	c.settle(proof, nil)
}

// settle makes the one step into a final state; the first one counts.
func (c *Conn) settle(p Proof, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return
	}
	c.settled, c.proof, c.cause = true, p, cause
	close(c.gone)
}
