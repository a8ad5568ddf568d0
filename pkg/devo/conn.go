package devo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// stallTimeout is how long the peer may take nothing while something waits to be written, or leave what was
	// written unacknowledged. Then the connection counts as broken: one that the network swallows tells nobody.
	// Alerts are to flow again within 30 s, a new connection included.
	stallTimeout = 15 * time.Second
	// alertWait is how long a failed write waits for the reader to find the peer's reason: an endpoint
	// that refuses a certificate sends its alert and then resets, and the write sees only the reset.
	alertWait = time.Second
)

// Conn is one connection to an endpoint. It is used for a while, half-closed for the proof, and closed.
// See the package comment for its states.
//
// All methods are safe for concurrent use. Writes follow one another whole; who wants an order of
// frames writes from one goroutine.
type Conn struct {
	name   string
	raw    *rawConn
	tls    *tls.Conn // nil over plain TCP
	stream io.ReadWriter
	kernel kernel
	base   int64 // the kernel's scale at our byte 0

	writing sync.Mutex // held over each write, so that none comes after close_notify
	tasks   sync.WaitGroup
	read    chan struct{} // closed when the reader has ended
	gone    chan struct{} // closed when proof and cause are settled

	mu       sync.Mutex
	closing  bool // HalfClose has begun
	ourEnd   bool // our FIN is out
	theirEnd bool // the peer's FIN was read
	notified bool // the peer's close_notify was read
	settled  bool
	proof    Proof
	cause    error // why it is Broken
	closed   bool
	last     int64 // Acked, as it was at Close
	lastOK   bool
}

// Dial connects to e and, for TLS, does the handshake, both within ctx and e.DialTimeout. Certificates
// are read from disk each time; with e.Keyring what was read before serves where a file cannot be used.
//
// Errors name the endpoint and are classified as [Classify] says, with a hint; all can be tried again.
// A nil error does not mean that a TLS 1.3 endpoint accepts our certificate: its refusal comes a round
// trip later, through [Conn.Gone] and [Conn.Err]. The caller closes the Conn.
func Dial(ctx context.Context, e Endpoint) (*Conn, error) {
	timeout := e.DialTimeout
	if timeout == 0 {
		timeout = DefaultDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := dial(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e, Classify(err))
	}
	return c, nil
}

func dial(ctx context.Context, e Endpoint) (*Conn, error) {
	var cfg *tls.Config
	if e.Kind == TLS {
		var err error
		if cfg, err = e.tlsConfig(time.Now()); err != nil {
			return nil, err
		}
	}
	conn, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		name:   e.String(),
		raw:    &rawConn{Conn: conn},
		kernel: kernelOf(conn),
		read:   make(chan struct{}),
		gone:   make(chan struct{}),
	}
	// Only the SYN is acknowledged so far.
	c.base, _ = c.kernel.acked()
	c.stream = c.raw
	if cfg != nil {
		c.tls = tls.Client(c.raw, cfg)
		if err := c.tls.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		c.stream = c.tls
	}
	c.tasks.Go(c.readToEnd)
	return c, nil
}

// Write writes all of p within ctx, and returns the connection's raw offset behind it:
// once [Conn.Acked] reaches that, the peer's TCP has all of p. That is not yet a delivery; see the
// package comment.
//
// A peer that takes nothing for 15 s is an error; one that is slow is waited for as long as ctx allows.
// After an error the Conn is dead, an unknown part of p may have arrived, and the offset covers what went
// into the kernel. Acked still works until Close. A context that has ended before the start, or a Conn
// that is already gone or half-closed, gives an error with nothing written.
func (c *Conn) Write(ctx context.Context, p []byte) (end int64, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.writable(ctx); err != nil {
		return c.raw.written.Load(), fmt.Errorf("write to %s: %w", c.name, err)
	}
	release := c.boundWrites(ctx)
	_, err = c.stream.Write(p)
	release()
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			err = ctx.Err()
		}
		err = fmt.Errorf("write to %s: %w", c.name, c.writeFailed(err))
	}
	return c.raw.written.Load(), err
}

func (c *Conn) writable(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.settled && c.cause != nil:
		return c.cause
	case c.closing || c.settled:
		return errors.New("the connection is half-closed")
	}
	return ctx.Err()
}

// boundWrites applies ctx to the writes until release.
func (c *Conn) boundWrites(ctx context.Context) (release func()) {
	deadline, _ := ctx.Deadline()
	c.raw.limit(deadline)
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.raw.limit(time.Unix(1, 0))
		close(cut)
	})
	return func() {
		if !stop() {
			<-cut // else it could cut the next write short
		}
	}
}

// writeFailed settles the Conn as broken and returns why. The peer's own reason, which the reader finds,
// comes before ours.
func (c *Conn) writeFailed(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) {
		wait := time.NewTimer(alertWait)
		defer wait.Stop()
		select {
		case <-c.read:
		case <-wait.C:
		}
	}
	c.settle(Broken, Classify(err))
	if known := c.Err(); known != nil {
		return known
	}
	return Classify(err)
}

// Acked returns how many bytes of the connection the peer's TCP has acknowledged, on the scale of
// Write's end; never more than were written. ok is false where the platform cannot tell. After Close it
// is what it was at Close.
func (c *Conn) Acked() (offset int64, ok bool) {
	// First the smaller one: bytes that are written meanwhile are left out.
	written := c.raw.written.Load()
	if n, ok := c.kernel.acked(); ok {
		return min(n-c.base, written), true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.lastOK
}

// Unacked returns how many written bytes are not yet acknowledged; ok as for [Conn.Acked].
func (c *Conn) Unacked() (n int64, ok bool) {
	offset, ok := c.Acked()
	if !ok {
		return 0, false
	}
	return max(0, c.raw.written.Load()-offset), true
}

// Gone is closed when the connection is of no more use: the peer ended or broke it, a write failed, it
// was closed, or its half-close was answered.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Err returns why the connection is gone, classified and with a hint; nil while it is not, and after a
// confirmed end. After a Close that came before any proof it is net.ErrClosed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Undisturbed reports that nothing has gone wrong and the peer has not ended the connection: it is open,
// or half-closed and unanswered.
func (c *Conn) Undisturbed() bool {
	select {
	case <-c.gone:
		return false
	default:
		return !c.raw.failed.Load()
	}
}

// Close ends the connection at once, without a handshake, and waits for its goroutines. What is
// unproved stays unproved; the kernel may still deliver what it holds. It can be called again and from
// several goroutines, and interrupts a Write and a HalfClose. The error is the socket's and can be ignored.
func (c *Conn) Close() error {
	last, ok := c.Acked()
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if first {
		c.last, c.lastOK = last, ok
	}
	c.mu.Unlock()
	c.settle(Broken, net.ErrClosed)
	var err error
	if first {
		err = c.raw.Conn.Close()
	}
	c.tasks.Wait()
	return err
}

// readToEnd owns reading. An endpoint has nothing to say, so what is read is thrown away; what counts is
// how the connection ends. TLS alerts, tickets and key updates are handled by reading, too.
func (c *Conn) readToEnd() {
	defer close(c.read)
	buf := make([]byte, 4<<10)
	err := drain(c.stream, buf)
	if c.tls != nil && errors.Is(err, io.EOF) && !c.raw.fin.Load() {
		// The end of TLS, not of the stream: what follows tells a clean end from a reset.
		c.peerNotified()
		err = drain(c.raw, buf)
	}
	if errors.Is(err, io.EOF) && c.raw.fin.Load() {
		c.peerEnded()
		return
	}
	c.settle(Broken, Classify(err))
}

func drain(r io.Reader, buf []byte) error {
	for {
		if _, err := r.Read(buf); err != nil {
			return err
		}
	}
}
