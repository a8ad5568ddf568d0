package devo

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is acknowledged and what the kernel still holds (SIOCOUTQ) make up what was written, to the
// byte: also while a stalled peer takes nothing, and after the write that ran out of time.
func TestAckedAgreesWithTheSendQueue(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		c := dialPeer(t, stalled(t, tr).endpoint)
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		end, err := c.Write(ctx, tooMuch)
		wantReason(t, err, TimedOut)

		var acked, queued int64
		waitFor(t, "acknowledged and queued bytes to be those written", func() bool {
			acked, _ = c.Acked()
			must(t, c.kernel.(socket).raw.Control(func(fd uintptr) {
				n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
				must(t, err)
				queued = int64(n)
			}))
			return acked+queued == end
		})
		if acked == 0 || queued == 0 {
			t.Errorf("acked %d, queued %d: the test stalls nothing", acked, queued)
		}
		if n, ok := c.Unacked(); n != queued || !ok {
			t.Errorf("Unacked = %d, %v, want %d", n, ok, queued)
		}
	})
}

func TestSocketOptions(t *testing.T) {
	c := dialPeer(t, stalled(t, transports[2]).endpoint)
	must(t, c.kernel.(socket).raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, want int }{
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 15_000},
			{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 16 << 10},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("option %d/%d = %d, %v, want %d", o.level, o.name, got, err, o.want)
			}
		}
	}))
}
