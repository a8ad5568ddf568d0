package devo

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// notSentLowWater bounds what waits unsent in the kernel (tcp(7), TCP_NOTSENT_LOWAT), so that a
// stalled peer stops Write soon and little is unacknowledged when it breaks. Measured: what Write
// had taken and what was acknowledged stayed within 24 messages of 1,500 bytes of each other.
const notSentLowWater = 16 << 10

// socket asks Linux about a TCP socket. It works until the file descriptor is closed, also after a
// reset (measured).
type socket struct{ raw syscall.RawConn }

// kernelOf sets the socket's options and returns what can be asked about it.
func kernelOf(conn net.Conn) kernel {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return unknownKernel{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return unknownKernel{}
	}
	s := socket{raw}
	// The SYN counts, so a live TCP connection has at least 1. User-space network stacks and kernels
	// before 4.1 leave the field 0.
	if n, ok := s.acked(); !ok || n < 1 {
		return unknownKernel{}
	}
	// Both options only make a failure show earlier; a system that refuses them works without.
	_ = raw.Control(func(fd uintptr) {
		// Written data that stays unacknowledged, or a closed window; the default is about 15 minutes.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTimeout.Milliseconds()))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowWater)
	})
	return s
}

func (s socket) acked() (n int64, ok bool) {
	err := s.raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n, ok = int64(info.Bytes_acked), true
		}
	})
	return n, ok && err == nil
}

func (s socket) pending() error {
	var value int
	var asked error
	err := s.raw.Control(func(fd uintptr) {
		value, asked = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	})
	switch {
	case err != nil:
		return err
	case asked != nil:
		return asked
	case value != 0:
		return syscall.Errno(value)
	}
	return nil
}
