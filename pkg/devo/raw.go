package devo

import (
	"errors"
	"io"
	"net"
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
}

func (r *rawConn) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	r.written.Add(int64(n))
	if err != nil {
		r.failed.Store(true)
	}
	return n, err
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
