package devo

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// net.Pipe knows neither FIN nor acknowledgement: it must work and must never be confirmed.
func TestPipeIsNeverConfirmed(t *testing.T) {
	for _, answered := range []bool{false, true} {
		ours, theirs := net.Pipe()
		e := Endpoint{Kind: TCP, Address: "pipe", Port: 1, Dialer: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		c := dialPeer(t, e)
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.ReadFull(theirs, make([]byte, 5))
		}()
		end, err := c.Write(testContext(t), []byte("hello"))
		must(t, err)
		<-read
		if _, ok := c.Acked(); ok || end != 5 {
			t.Errorf("Acked ok = %v, end = %d", ok, end)
		}
		short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		proof, _ := c.HalfClose(short)
		cancel()
		if proof != Unanswered {
			t.Errorf("HalfClose = %v", proof)
		}
		if answered {
			theirs.Close()
			proof, err := c.Await(testContext(t))
			if proof != Broken {
				t.Errorf("Await = %v", proof)
			}
			wantReason(t, err, NoHalfClose)
		}
		c.Close()
		theirs.Close()
	}
}

// bare hides everything of a TCP connection but what the portable part uses.
type bare struct{ net.Conn }

func (b bare) CloseWrite() error { return b.Conn.(*net.TCPConn).CloseWrite() }

func TestPortableProof(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		got := make(chan int64, 2)
		p := newPeer(t, tr, nil, reader(got))
		p.endpoint.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return bare{conn}, err
		}
		c := dialPeer(t, p.endpoint)
		if _, ok := c.Acked(); ok {
			t.Fatal("Acked tells without a socket")
		}
		_, err := c.Write(testContext(t), make([]byte, 1000))
		must(t, err)
		if proof, err := c.HalfClose(testContext(t)); proof != Confirmed {
			t.Fatalf("HalfClose = %v, %v", proof, err)
		}
		if n := <-got; n != 1000 {
			t.Errorf("the peer read %d", n)
		}
	})
}

// otherKernel tells what the test wants.
type otherKernel struct {
	missing int64
	err     error
	conn    *Conn
}

func (k *otherKernel) acked() (int64, bool) {
	return k.conn.base + k.conn.raw.written.Load() - k.missing, true
}
func (k *otherKernel) pending() error { return k.err }

// The peer's FIN alone is not enough: the kernel must have nothing to say against it.
func TestKernelHasAVeto(t *testing.T) {
	for name, c := range map[string]struct {
		kernel otherKernel
		proof  Proof
		reason Reason
	}{
		"nothing to say":     {otherKernel{}, Confirmed, ""},
		"one byte is open":   {otherKernel{missing: 1}, Broken, Unacknowledged},
		"an error is left":   {otherKernel{err: syscall.ECONNRESET}, Broken, ConnectionReset},
		"more than all came": {otherKernel{missing: -1}, Confirmed, ""}, // our FIN counts in the kernel
	} {
		t.Run(name, func(t *testing.T) {
			overAll(t, func(t *testing.T, tr transport) {
				conn := dialPeer(t, newPeer(t, tr, nil, reader(make(chan int64, 1))).endpoint)
				kernel := c.kernel
				kernel.conn = conn
				conn.kernel = &kernel
				_, err := conn.Write(testContext(t), []byte("event\n"))
				must(t, err)
				proof, err := conn.HalfClose(testContext(t))
				if proof != c.proof {
					t.Errorf("HalfClose = %v, %v, want %v", proof, err, c.proof)
				}
				if c.reason != "" {
					wantReason(t, err, c.reason)
				}
			})
		})
	}
}

// A failed write that nobody saw, such as one of the TLS library's own, is a veto, too.
func TestUnseenFailedWriteIsAVeto(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		c := dialPeer(t, newPeer(t, tr, nil, reader(make(chan int64, 1))).endpoint)
		c.raw.failed.Store(true)
		if c.Undisturbed() {
			t.Error("undisturbed after a failed write")
		}
		if proof, err := c.HalfClose(testContext(t)); proof != Broken || err == nil {
			t.Errorf("HalfClose = %v, %v", proof, err)
		}
	})
}

// deadlines is a TCP connection that tells of its write deadlines.
type deadlines struct {
	*net.TCPConn
	mu    sync.Mutex
	set   []time.Time
	past  chan struct{} // if not nil: closed when a past deadline is on its way, which then takes a while
	write func()        // if not nil: called before each write
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.mu.Lock()
	d.set = append(d.set, at)
	past := d.past
	d.mu.Unlock()
	if past != nil && at.Before(time.Now()) {
		close(past)
		time.Sleep(20 * time.Millisecond)
	}
	return d.TCPConn.SetWriteDeadline(at)
}

func (d *deadlines) Write(p []byte) (int, error) {
	if d.write != nil {
		d.write()
	}
	return d.TCPConn.Write(p)
}

func (d *deadlines) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set = nil
}

// watched makes e dial connections of that type.
func watched(e Endpoint) (Endpoint, *deadlines) {
	d := &deadlines{}
	e.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		d.TCPConn = conn.(*net.TCPConn)
		return d, nil
	}
	return e, d
}

// crypto/tls would give close_notify five seconds; a slow peer has fifteen.
func TestCloseNotifyHasTime(t *testing.T) {
	overTLS(t, func(t *testing.T, tr transport) {
		e, d := watched(newPeer(t, tr, nil, reader(make(chan int64, 1))).endpoint)
		c := dialPeer(t, e)
		d.forget() // those of the handshake
		begin := time.Now()
		if proof, err := c.HalfClose(testContext(t)); proof != Confirmed {
			t.Fatalf("HalfClose = %v, %v", proof, err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, at := range d.set {
			if at.Sub(begin) < stallTimeout {
				t.Errorf("a write deadline %v after the begin", at.Sub(begin))
			}
		}
		if len(d.set) == 0 {
			t.Error("no write deadline at all")
		}
	})
}

// A peer may be slow: each piece of a long write has the whole time, within what the context allows.
func TestSlowPeerHasTime(t *testing.T) {
	overTLS(t, func(t *testing.T, tr transport) {
		e, d := watched(newPeer(t, tr, nil, reader(make(chan int64, 1))).endpoint)
		c := dialPeer(t, e)
		d.forget()
		begin := time.Now()
		if _, err := c.Write(context.Background(), make([]byte, 10*maxPiece)); err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		if len(d.set) < 10 {
			t.Errorf("%d deadlines for ten pieces", len(d.set))
		}
		for _, at := range d.set {
			if at.Sub(begin) < stallTimeout {
				t.Errorf("a piece has %v", at.Sub(begin))
			}
		}
		d.set = nil
		d.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), stallTimeout/2)
		defer cancel()
		until, _ := ctx.Deadline()
		if _, err := c.Write(ctx, make([]byte, 10*maxPiece)); err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, at := range d.set {
			if at.After(until) {
				t.Errorf("a piece may go on %v beyond the context", at.Sub(until))
			}
		}
	})
}

// A context that ends while its write succeeds must not cut the next write short.
func TestLateCancelLeavesTheNextWriteAlone(t *testing.T) {
	e, d := watched(newPeer(t, transports[2], nil, reader(make(chan int64, 1))).endpoint)
	c := dialPeer(t, e)
	ctx, cancel := context.WithCancel(context.Background())
	d.past = make(chan struct{})
	d.write = func() { cancel(); <-d.past }
	_, err := c.Write(ctx, []byte("one"))
	must(t, err)
	d.mu.Lock()
	d.past = nil
	d.mu.Unlock()
	d.write = func() { time.Sleep(40 * time.Millisecond) }
	if _, err = c.Write(context.Background(), []byte("two")); err != nil {
		t.Errorf("the next write: %v", err)
	}
	if _, err := c.Write(ctx, []byte("three")); !errors.Is(err, context.Canceled) {
		t.Errorf("a write with the ended context: %v", err)
	}
}
