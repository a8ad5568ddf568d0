//go:build e2e

package e2e

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// link is the network between a program and a server, as a TCP proxy that can fail.
//
//	whole ──stall──> stalled: bytes wait on their way, nobody is told ──mend──> whole: and arrive late
//	      ──cut────> cut: connections are closed, new ones too        ──mend──> whole
type link struct {
	addr   string
	target string
	ctx    context.Context
	all    sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while the link is not stalled
	isCut bool
	conns map[net.Conn]bool
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &link{addr: listener.Addr().String(), target: target, ctx: ctx, open: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(k.open)
	k.all.Go(func() { k.accept(listener) })
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		k.closeAll()
		k.all.Wait()
	})
	return k
}

func (k *link) accept(listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", k.target, 10*time.Second)
		if err != nil {
			_ = near.Close()
			continue
		}
		k.mu.Lock()
		if k.isCut {
			_, _ = near.Close(), far.Close()
		} else {
			k.conns[near], k.conns[far] = true, true
			k.all.Go(func() { k.copy(near, far) })
			k.all.Go(func() { k.copy(far, near) })
		}
		k.mu.Unlock()
	}
}

func (k *link) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		k.mu.Lock()
		open := k.open
		k.mu.Unlock()
		select {
		case <-open:
		case <-k.ctx.Done():
			return
		}
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

func (k *link) closeAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.Close()
	}
	clear(k.conns)
}

func (k *link) stall() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = make(chan struct{})
}

func (k *link) cut() {
	k.mu.Lock()
	k.isCut = true
	k.mu.Unlock()
	k.closeAll()
}

func (k *link) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.isCut = false
	select {
	case <-k.open:
	default:
		close(k.open)
	}
}
