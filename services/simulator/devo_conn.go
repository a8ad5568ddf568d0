package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	handshakeTime = 10 * time.Second
	finTime       = time.Second // from the client's close_notify to its FIN
	holdTime      = 2 * time.Minute
	unreadTime    = 10 * time.Second
)

// errEnd stops the reading of a connection that a fault ends.
var errEnd = errors.New("connection ended on request")

// devoConn is a connection below TLS: here reading can be stalled, slowed
// down and stopped. One goroutine reads; suffer and stop come from others.
type devoConn struct {
	*net.TCPConn
	ctx    context.Context
	cancel context.CancelFunc
	fault  atomic.Pointer[DevoFault]
	armed  bool       // the handshake is done
	obeyed *DevoFault // its stall is over
	frames int64
	bytes  int64
	share  int // what may be read before the next pause of a throttled connection
}

func newDevoConn(raw *net.TCPConn, f *DevoFault) *devoConn {
	c := &devoConn{TCPConn: raw}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.fault.Store(f)
	return c
}

// stop ends the connection at once.
func (c *devoConn) stop() {
	c.cancel()
	_ = c.TCPConn.Close() // it is given up; nobody can use the error
}

// suffer replaces the fault and wakes a Read that waits for data. Read
// deadlines are used for nothing else.
func (c *devoConn) suffer(f *DevoFault) {
	c.fault.Store(f)
	_ = c.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection only
}

// Read implements net.Conn.
func (c *devoConn) Read(p []byte) (int, error) {
	for {
		if f := c.fault.Load(); f != nil && c.armed {
			if err := c.obey(f); err != nil {
				return 0, err
			}
			if f.ThrottleBytes > 0 && len(p) > 0 {
				// TLS reads a record at a time, whatever there is: the pauses go by what was read.
				if c.share <= 0 {
					if !c.wait(f.ThrottleEvery) {
						return 0, net.ErrClosed
					}
					c.share = f.ThrottleBytes
				}
				p = p[:min(len(p), c.share)]
			}
		}
		n, err := c.TCPConn.Read(p)
		c.bytes, c.share = c.bytes+int64(n), c.share-n
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.ctx.Err() == nil {
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return 0, err
			}
			continue
		}
		return n, err
	}
}

// obey stalls, and fails if the connection is to end.
func (c *devoConn) obey(f *DevoFault) error {
	if c.obeyed == f || !f.due(c.frames, c.bytes) {
		return nil
	}
	if !c.wait(f.Stall) {
		return net.ErrClosed
	}
	if f.End != GoOn {
		return errEnd
	}
	c.obeyed = f
	return nil
}

// wait is false if the connection was stopped meanwhile.
func (c *devoConn) wait(d time.Duration) bool {
	if d <= 0 {
		return c.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// toFIN reads and drops until the client's FIN, but no longer than d.
func (c *devoConn) toFIN(d time.Duration) {
	buf := make([]byte, 4<<10)
	for end := time.Now().Add(d); time.Now().Before(end) && c.ctx.Err() == nil; {
		if c.SetReadDeadline(end) != nil {
			return
		}
		// suffer may move the deadline to the past: then once more.
		if _, err := c.TCPConn.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// serve reads a connection to its end.
func (d *Devo) serve(c *devoConn) {
	f := c.fault.Load()
	if size := d.opts.ReceiveBuffer; size > 0 {
		_ = c.SetReadBuffer(size)
	}
	if f != nil && f.ReceiveBuffer > 0 {
		_ = c.SetReadBuffer(f.ReceiveBuffer)
	}
	broken := func(s *DevoStats) { s.Broken++ }
	if f != nil && f.Drop {
		d.arrivals.note(broken)
		return
	}
	var stream net.Conn = c
	var secure *tls.Conn
	if d.opts.Authority != nil {
		secure = tls.Server(c, d.tlsConfig(f != nil && f.Refuse))
		ctx, cancel := context.WithTimeout(c.ctx, handshakeTime)
		err := secure.HandshakeContext(ctx)
		cancel()
		if err != nil {
			d.arrivals.note(func(s *DevoStats) { s.Refused++; s.Broken++ })
			// The client shall read the alert and not a reset.
			if c.CloseWrite() == nil {
				c.toFIN(finTime)
			}
			return
		}
		stream = secure
	}
	c.armed = true
	frames := newFrameReader(stream)
	tail, err := frames.run(func(frame []byte) error { return d.arrive(c, frame) })
	d.arrivals.note(func(s *DevoStats) { s.Members += frames.members })
	if tail > 0 {
		d.arrivals.cut(tail)
	}
	switch {
	case errors.Is(err, errEnd):
		d.arrivals.note(broken)
		c.end(secure)
	case errors.Is(err, io.EOF):
		if c.answer(secure) {
			d.arrivals.note(func(s *DevoStats) { s.HalfCloses++ })
		} else {
			d.arrivals.note(broken)
		}
	default:
		d.arrivals.note(broken)
	}
}

func (d *Devo) arrive(c *devoConn, frame []byte) error {
	d.arrivals.frame(frame)
	if d.opts.OnFrame != nil {
		d.opts.OnFrame(frame)
	}
	c.frames++
	if f := c.fault.Load(); f != nil {
		return c.obey(f)
	}
	return nil
}

// end does what the fault says.
func (c *devoConn) end(secure *tls.Conn) {
	f := c.fault.Load()
	if f == nil {
		return // cleared in this moment: an ordinary close
	}
	switch f.End {
	case Reset:
		abort(c.TCPConn)
	case CloseUnread, CloseOrderly:
		if f.End == CloseUnread && !c.watch(unread) {
			return
		}
		if secure != nil {
			_ = secure.CloseWrite() // fails if the client is gone
		}
		_ = c.TCPConn.Close()
	case ShutUnread:
		if !c.watch(func(raw *net.TCPConn) bool { return unread(raw) && halfClosed(raw) }) {
			return
		}
		_ = c.TCPConn.CloseWrite() // fails if the client is gone
		c.wait(finTime)            // a close of unread data resets: not before the client has seen the FIN
	}
}

// watch waits until what is looked for has come, but no longer than unreadTime. It is false if the connection was
// stopped meanwhile.
func (c *devoConn) watch(come func(*net.TCPConn) bool) bool {
	for deadline := time.Now().Add(unreadTime); !come(c.TCPConn) && time.Now().Before(deadline); {
		if !c.wait(2 * time.Millisecond) {
			return false
		}
	}
	return true
}

// answer replies to the client's half-close after everything was read. It is
// false if that was not to be.
func (c *devoConn) answer(secure *tls.Conn) bool {
	if secure != nil {
		// close_notify and FIN are two segments. An answer between them would
		// look to the client like an end that it had not asked for. A client
		// that sends close_notify alone is answered after this second.
		c.toFIN(finTime)
	}
	if f := c.fault.Load(); f != nil {
		if f.NoAnswer {
			c.hold(f)
			return false
		}
		if !c.wait(f.AnswerDelay) {
			return false
		}
	}
	if secure != nil && secure.CloseWrite() != nil {
		return false
	}
	if c.CloseWrite() != nil {
		return false
	}
	c.toFIN(finTime)
	return true
}

// hold keeps the connection open until its fault is cleared.
func (c *devoConn) hold(f *DevoFault) {
	for end := time.Now().Add(holdTime); time.Now().Before(end) && c.fault.Load() == f; {
		if !c.wait(10 * time.Millisecond) {
			return
		}
	}
}
