//go:build e2e

package e2e

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// Endpoints that misbehave in other ways, one after the other under load, on one process that must survive them all
// and have no more open in the end than before.
func TestEndpointMisbehaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1000})
	p := w.run()
	end := w.feed(50)
	w.flows()
	quiet := p.leaks()
	var slowest time.Duration
	for _, tt := range []struct {
		name   string
		fault  simulator.DevoFault
		lasts  time.Duration
		broken bool
	}{
		{"accepts and closes", simulator.DevoFault{Connections: 4, Drop: true}, 0, true},
		{"reads a byte a second", simulator.DevoFault{Connections: -1, Live: true, ThrottleBytes: 1, ThrottleEvery: time.Second}, 15 * time.Second, true},
		{"answers a half-close late", simulator.DevoFault{Connections: 2, AnswerDelay: 4 * time.Second}, 0, false},
		{"leaves a half-close unanswered", simulator.DevoFault{Connections: 1, NoAnswer: true}, 0, true},
		{"closes politely", simulator.DevoFault{Connections: 3, AfterFrames: 20, End: simulator.CloseOrderly}, 0, true},
		{"resets again and again", simulator.DevoFault{Connections: 4, AfterFrames: 30, End: simulator.Reset}, 0, true},
	} {
		before := w.sim.Devo.Stats().Connections
		w.sim.Devo.Fail(tt.fault)
		if tt.broken {
			w.breaks += max(1, tt.fault.Connections) + 1
		}
		if tt.lasts > 0 {
			time.Sleep(tt.lasts)
			w.sim.Devo.Clear()
		} else {
			eventually(t, tt.name+": new connections", func() bool { return w.sim.Devo.Stats().Connections >= before+int64(tt.fault.Connections) })
		}
		slowest = max(slowest, w.flows())
	}
	end()
	w.arrived()
	w.confirmed()
	quiet()
	w.healthy(p, slowest)
}

// forwarder passes connections on; while it drops, nothing passes on them in either direction and nothing ends, as
// on a network that has lost its way. Those connections stay so.
type forwarder struct {
	listener net.Listener
	to       string
	dropping atomic.Bool
	group    sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newForwarder(t *testing.T, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: l, to: to}
	f.group.Go(f.accept)
	t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.group.Wait()
	})
	return f
}

func (f *forwarder) accept() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", f.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		f.mu.Lock()
		f.conns = append(f.conns, in, out)
		f.mu.Unlock()
		lost := &atomic.Bool{}
		f.group.Go(func() { f.pass(in, out, lost) })
		f.group.Go(func() { f.pass(out, in, lost) })
	}
}

// pass copies until its side ends, which it passes on, or until the way is lost, which nobody is told.
func (f *forwarder) pass(from, to net.Conn, lost *atomic.Bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if f.dropping.Load() {
			lost.Store(true)
		}
		if lost.Load() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok && err == io.EOF {
				_ = half.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

// A connection is half-open: the network swallows it and tells neither side. New ones work.
func TestEndpointHalfOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 500})
	_, port, err := net.SplitHostPort(w.sim.Devo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	f := newForwarder(t, w.sim.Devo.Addr())
	_, own, err := net.SplitHostPort(f.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.configure("port: "+port, "port: "+own)
	p := w.run()
	end := w.feed(50)
	w.flows()
	var slowest time.Duration
	for range 2 {
		f.dropping.Store(true)
		w.breaks++
		time.Sleep(2 * time.Second)
		f.dropping.Store(false)
		slowest = max(slowest, w.flows())
	}
	end()
	if a := w.healthy(p, slowest); a.resent == 0 {
		t.Errorf("nothing was sent again, so this test has shown nothing: %v", a)
	}
}
