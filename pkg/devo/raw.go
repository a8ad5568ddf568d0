package devo

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// rawConn lies below TLS and keeps what TLS hides: how many bytes went into the connection, whether any
// write ever failed, and whether the stream itself has ended, which close_notify does not say.
type rawConn struct {
	net.Conn
	written atomic.Int64
	failed  atomic.Bool // a write failed; sticky, because the kernel reports an error only once
	fin     atomic.Bool // the peer's FIN was read

	mu       sync.Mutex
	deadline time.Time // of the writes together; zero: none
}

// maxPiece is what a stalled peer must take within [stallTimeout]; a TLS record is one piece.
const maxPiece = 32 << 10

// Write writes piece by piece, so that a slow peer that goes on taking bytes is not given up.
func (r *rawConn) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		r.mu.Lock()
		r.patient()
		r.mu.Unlock()
		var k int
		k, err = r.Conn.Write(p[n:min(n+maxPiece, len(p))])
		r.written.Add(int64(k))
		n += k
	}
	if err != nil {
		r.failed.Store(true)
	}
	return n, err
}

// limit sets until when all writes must be done, also the one that is under way; zero: no limit but stallTimeout for
// each piece.
func (r *rawConn) limit(deadline time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = deadline
	r.patient()
}

// patient sets the deadline of the next piece. An error means a closed connection, which the write itself reports.
func (r *rawConn) patient() {
	next := time.Now().Add(stallTimeout)
	if !r.deadline.IsZero() && r.deadline.Before(next) {
		next = r.deadline
	}
	_ = r.Conn.SetWriteDeadline(next)
}

func (r *rawConn) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		r.fin.Store(true)
	}
	return n, err
}

// SetWriteDeadline does nothing: crypto/tls allows close_notify a fixed five seconds, which a slow but
// healthy peer can exceed. Conn sets the deadlines of the connection below.
func (r *rawConn) SetWriteDeadline(time.Time) error { return nil }
