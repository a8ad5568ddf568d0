package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// DevoOptions are the settings of a [Devo].
type DevoOptions struct {
	// Listen is the address, "127.0.0.1:0" if empty.
	Listen string
	// Authority signs the server's certificate and is the one whose client
	// certificates are accepted. Without one the endpoint speaks plain TCP.
	Authority *Authority
	// Names are further names in the server's certificate.
	Names []string
	// MaxTLS is the highest TLS version, e.g. tls.VersionTLS12; 0 for 1.3.
	MaxTLS uint16
	// KeepFrames keeps every frame for Devo.Frames. Memory grows with them.
	KeepFrames bool
	// OnFrame is called with every whole frame, on the connection's goroutine.
	// The slice is good until it returns.
	OnFrame func(frame []byte)
	// ReceiveBuffer is SO_RCVBUF of all connections, 0 for the system's.
	ReceiveBuffer int
}

// Devo is a Devo endpoint: syslog frames over mutual TLS or TCP. It reads each
// connection to its end and answers the client's half-close with its own, so
// that a client which saw that answer knows all was read:
//
//	reading --close_notify/FIN--> drained --our close_notify, FIN--> closed
//	   |
//	   +-- reset, FIN within a TLS record, a fault --> broken
//
// It is safe for concurrent use. Start it once and Close it.
type Devo struct {
	opts     DevoOptions
	arrivals *arrivals
	faults   devoFaults
	wg       sync.WaitGroup

	mu       sync.Mutex
	cert     tls.Certificate
	addr     string // once known
	listener *net.TCPListener
	conns    map[*devoConn]struct{}
	closed   bool
}

// NewDevo makes an endpoint that does not listen yet.
func NewDevo(o DevoOptions) (*Devo, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	d := &Devo{opts: o, addr: o.Listen, arrivals: newArrivals(o.KeepFrames), conns: map[*devoConn]struct{}{}}
	if o.Authority != nil {
		if err := d.Present(Sound); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Start begins to listen.
func (d *Devo) Start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("devo endpoint: closed")
	}
	if d.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", d.addr)
	if err != nil {
		return fmt.Errorf("devo endpoint: listen on %s: %w", d.addr, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return errors.Join(fmt.Errorf("devo endpoint: %s is no TCP address", d.addr), l.Close())
	}
	d.listener, d.addr = tcp, tcp.Addr().String()
	d.wg.Go(func() { d.accept(tcp) })
	return nil
}

// Addr returns the address listened on; it stays the same over Away and Back.
func (d *Devo) Addr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addr
}

// Away closes the listener and all connections, as a process does that dies:
// what was not read is lost.
func (d *Devo) Away() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close() // nothing else can be done with it
		d.listener = nil
	}
	for c := range d.conns {
		c.stop()
	}
}

// Back listens again on the same port. It tries for five seconds, as the
// system may not free the port at once.
func (d *Devo) Back() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := d.Start()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Close ends everything and waits for it, until ctx ends. It may be called
// again.
func (d *Devo) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.Away()
	done := make(chan struct{})
	go func() {
		d.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("devo endpoint: connections still open: %w", ctx.Err())
	}
}

// Present changes the server's certificate for coming connections.
func (d *Devo) Present(flaw Flaw) error {
	cert, err := d.opts.Authority.Server(flaw, d.opts.Names...)
	if err != nil {
		return fmt.Errorf("devo endpoint: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cert = cert
	return nil
}

// Fail treats connections badly.
func (d *Devo) Fail(f DevoFault) {
	if f.Live {
		d.mu.Lock()
		for c := range d.conns {
			c.suffer(&f)
		}
		d.mu.Unlock()
	}
	if f.Connections == 0 && !f.Live {
		f.Connections = 1
	}
	if f.Connections != 0 {
		d.faults.add(f)
	}
}

// Clear forgets all faults; open connections go on as usual, as far as their
// fault has not happened yet.
func (d *Devo) Clear() {
	d.faults.clear()
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		c.suffer(nil)
	}
}

func (d *Devo) accept(l *net.TCPListener) {
	for {
		raw, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		d.arrivals.note(func(s *DevoStats) { s.Connections++; s.Open++ })
		c := newDevoConn(raw, d.faults.take())
		if !d.enter(c, l) {
			c.stop()
			d.arrivals.note(func(s *DevoStats) { s.Open--; s.Broken++ })
			continue
		}
		d.wg.Go(func() {
			defer d.leave(c)
			d.serve(c)
		})
	}
}

// enter adds a connection, unless its listener was closed meanwhile.
func (d *Devo) enter(c *devoConn, l *net.TCPListener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != l {
		return false
	}
	d.conns[c] = struct{}{}
	return true
}

func (d *Devo) leave(c *devoConn) {
	c.stop()
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
	d.arrivals.note(func(s *DevoStats) { s.Open-- })
}

// tlsConfig is made for each connection: certificate and judgement change.
func (d *Devo) tlsConfig(refuse bool) *tls.Config {
	d.mu.Lock()
	cert := d.cert
	d.mu.Unlock()
	config := &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    d.opts.Authority.Pool(),
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   d.opts.MaxTLS,
	}
	if refuse {
		config.VerifyConnection = func(tls.ConnectionState) error {
			return errors.New("client certificate refused on request")
		}
	}
	return config
}
