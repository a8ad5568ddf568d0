package simulator_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

const patience = 20 * time.Second

// endpoint is a Devo endpoint with a client certificate for it.
type endpoint struct {
	*simulator.Devo
	ca     *simulator.Authority
	client tls.Certificate
}

func newEndpoint(t testing.TB, o simulator.DevoOptions) *endpoint {
	t.Helper()
	ca, err := simulator.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{ca: ca}
	if e.client, err = ca.Client(simulator.Sound, "domain"); err != nil {
		t.Fatal(err)
	}
	o.Authority = ca
	if e.Devo, err = simulator.NewDevo(o); err != nil {
		t.Fatal(err)
	}
	start(t, e.Devo)
	return e
}

func start(t testing.TB, d *simulator.Devo) {
	t.Helper()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func (e *endpoint) config() *tls.Config {
	return &tls.Config{RootCAs: e.ca.Pool(), Certificates: []tls.Certificate{e.client}, ServerName: "localhost"}
}

// connection is a client that keeps hold of the socket below TLS.
type connection struct {
	*tls.Conn
	raw *net.TCPConn
}

func (e *endpoint) dial(t testing.TB) *connection {
	t.Helper()
	c, err := e.tryDial(e.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.raw.Close() })
	return c
}

func (e *endpoint) tryDial(config *tls.Config) (*connection, error) {
	conn, err := net.DialTimeout("tcp", e.Addr(), patience)
	if err != nil {
		return nil, err
	}
	c := &connection{tls.Client(conn, config), conn.(*net.TCPConn)}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := c.Handshake(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *connection) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// finish closes our side and returns what TLS and what the socket say of the
// other's.
func (c *connection) finish(t testing.TB) (secure, raw error) {
	t.Helper()
	if err := errors.Join(c.CloseWrite(), c.raw.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	_, secure = io.Copy(io.Discard, c)
	_, raw = io.Copy(io.Discard, c.raw)
	return secure, raw
}

func frame(n int) string {
	return fmt.Sprintf(`<14>2026-11-22 19:04:06.436 vm edr.microsoft_defender.iot_security.alert: {"id":"/subscriptions/S/alerts/%d","pad":"%s"}`+"\n", n, strings.Repeat("x", 1000))
}

func frames(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		b.WriteString(frame(n))
	}
	return b.String()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestDevoReadsAllBeforeAnswering(t *testing.T) {
	var seen atomic.Int64
	e := newEndpoint(t, simulator.DevoOptions{KeepFrames: true, OnFrame: func([]byte) { seen.Add(1) }})
	c := e.dial(t)
	c.send(t, frames(0, 500))
	c.send(t, frame(7)+"<14>2026-11-22 19:04:06.436 vm devo.collectors.out.local.info: hello\n<14>cut")
	secure, raw := c.finish(t)
	if secure != nil || raw != nil {
		t.Errorf("the end was %v and %v, want an orderly one", secure, raw)
	}
	eventually(t, "connection closed", func() bool { return e.Stats().Open == 0 })
	s := e.Stats()
	if s.Frames != 502 || s.Unique != 500 || s.Duplicates != 1 || s.WithoutID != 1 || s.CutTails != 1 || s.CutBytes != 7 || s.HalfCloses != 1 || s.Broken != 0 {
		t.Errorf("stats %+v", s)
	}
	if s.Tags["edr.microsoft_defender.iot_security.alert"] != 501 || seen.Load() != 502 || len(e.Frames()) != 502 {
		t.Errorf("tags %v, %d frames seen, %d kept", s.Tags, seen.Load(), len(e.Frames()))
	}
	if got := string(e.Frames()[3]) + "\n"; got != frame(3) {
		t.Errorf("frame 3 is %q", got)
	}
	missing := e.Missing([]string{"/SUBSCRIPTIONS/s/alerts/3", "/subscriptions/s/alerts/500"})
	if len(missing) != 1 || missing[0] != "/subscriptions/s/alerts/500" || e.Count("/subscriptions/s/alerts/7") != 2 || len(e.Counts()) != 500 {
		t.Errorf("missing %v", missing)
	}
}

func TestDevoAnswersCloseNotifyAlone(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{MaxTLS: tls.VersionTLS12})
	c := e.dial(t)
	c.send(t, frame(1))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("read: %v", err)
	}
	if got := e.Stats().Frames; got != 1 {
		t.Errorf("%d frames, want 1", got)
	}
}

func TestPlainDevo(t *testing.T) {
	d, err := simulator.NewDevo(simulator.DevoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start(t, d)
	conn, err := net.Dial("tcp", d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, frames(0, 10)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	if got := d.Stats(); got.Frames != 10 {
		t.Errorf("stats %+v", got)
	}
}

func TestDevoDemandsACertificate(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	other := newEndpoint(t, simulator.DevoOptions{})
	expired, err := e.ca.Client(simulator.Expired, "domain")
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]tls.Certificate{
		"none": nil, "another authority's": {other.client}, "expired": {expired},
	} {
		config := e.config()
		config.Certificates = certs
		c, err := e.tryDial(config)
		if err != nil {
			t.Errorf("%s: with TLS 1.3 the client's handshake should pass: %v", name, err)
			continue
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("%s: read: %v, want an alert", name, err)
		}
		c.raw.Close()
	}
	eventually(t, "3 refused", func() bool { return e.Stats().Refused == 3 })
}

func TestDevoPresentsFlawedCertificates(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	for flaw, want := range map[simulator.Flaw]string{
		simulator.Expired: "expired", simulator.WrongName: "not localhost", simulator.Sound: "",
	} {
		if err := e.Present(flaw); err != nil {
			t.Fatal(err)
		}
		c, err := e.tryDial(e.config())
		if err == nil {
			c.raw.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("flaw %d: %v, want %q", flaw, err, want)
		}
	}
}
