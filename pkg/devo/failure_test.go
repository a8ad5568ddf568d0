package devo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/pkg/fault"
)

// overTLS runs a test over TLS 1.3 and 1.2.
func overTLS(t *testing.T, test func(t *testing.T, tr transport)) {
	for _, tr := range transports[:2] {
		t.Run(tr.name, func(t *testing.T) { test(t, tr) })
	}
}

// untilEnd serves a connection by reading to its end.
func untilEnd(l *link) { _, _ = io.Copy(io.Discard, l.stream) }

// Under TLS 1.3 the refusal comes after the dial and must be noticed without a write.
func TestClientCertificateRefused(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, p *peer){
		"foreign": func(t *testing.T, p *peer) {
			p.endpoint.CertFile, p.endpoint.KeyFile = newAuthority(t).issue(t, "client", time.Now().Add(time.Hour))
		},
		"none": func(_ *testing.T, p *peer) { p.endpoint.CertFile, p.endpoint.KeyFile = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			overTLS(t, func(t *testing.T, tr transport) {
				p := newPeer(t, tr, func(p *peer) { change(t, p) }, untilEnd)
				c, err := Dial(testContext(t), p.endpoint)
				if tr.version == tls.VersionTLS13 {
					must(t, err)
					defer c.Close()
					waitGone(t, c)
					err = c.Err()
					if proof, halfErr := c.HalfClose(testContext(t)); proof != Broken || halfErr == nil {
						t.Errorf("HalfClose = %v, %v", proof, halfErr)
					}
				}
				if name == "none" && tr.version == tls.VersionTLS12 {
					wantReason(t, err, Protocol) // a handshake failure is all that Go's TLS 1.2 says
				} else {
					wantReason(t, err, ClientCertificate)
				}
			})
		})
	}
}

// A write that meets the reset behind the alert must tell the alert.
func TestRefusalIsToldByTheWrite(t *testing.T) {
	p := newPeer(t, transports[0], nil, untilEnd)
	p.endpoint.CertFile, p.endpoint.KeyFile = newAuthority(t).issue(t, "client", time.Now().Add(time.Hour))
	for range 20 {
		c, err := Dial(testContext(t), p.endpoint)
		must(t, err)
		for err == nil {
			_, err = c.Write(testContext(t), []byte("event\n"))
		}
		wantReason(t, err, ClientCertificate)
		wantReason(t, c.Err(), ClientCertificate)
		c.Close()
	}
}

func TestServerCertificate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, p *peer)
		want   Reason
	}{
		"wrong name":        {func(_ *testing.T, p *peer) { p.endpoint.ServerName = "other.test" }, WrongName},
		"address as name":   {func(_ *testing.T, p *peer) { p.endpoint.ServerName = "" }, WrongName},
		"unknown authority": {func(t *testing.T, p *peer) { p.endpoint.ChainFile = newAuthority(t).file }, UnknownAuthority},
		"no chain file":     {func(_ *testing.T, p *peer) { p.endpoint.ChainFile = "" }, UnknownAuthority},
		"expired": {func(t *testing.T, p *peer) {
			cert, key := p.ca.issue(t, serverName, time.Now().Add(-time.Hour))
			p.use(t, cert, key)
		}, ServerCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			overTLS(t, func(t *testing.T, tr transport) {
				got := make(chan int64, 1)
				p := newPeer(t, tr, func(p *peer) { c.change(t, p) }, reader(got))
				_, err := Dial(testContext(t), p.endpoint)
				wantReason(t, err, c.want)
				if err != nil && !strings.Contains(err.Error(), p.endpoint.String()) {
					t.Errorf("error does not name the endpoint: %v", err)
				}

				// The opt-out accepts all of these, and the endpoint still gets our certificate.
				p.endpoint.SkipVerification = true
				conn := dialPeer(t, p.endpoint)
				if proof, err := conn.HalfClose(testContext(t)); proof != Confirmed {
					t.Errorf("without verification: %v, %v", proof, err)
				}
			})
		})
	}
}

// crypto/tls keeps a certificate back whose issuer is not on the endpoint's list; we send it.
func TestCertificateIsSentToEndpointsThatAskForOthers(t *testing.T) {
	overTLS(t, func(t *testing.T, tr transport) {
		got := make(chan int, 1)
		p := newPeer(t, tr, func(p *peer) {
			p.server.ClientAuth = tls.RequestClientCert
			p.server.ClientCAs = x509.NewCertPool()
			p.server.ClientCAs.AddCert(newAuthority(t).cert)
		}, func(l *link) { got <- len(l.tls.ConnectionState().PeerCertificates); untilEnd(l) })
		dialPeer(t, p.endpoint)
		if n := <-got; n != 1 {
			t.Errorf("the endpoint got %d certificates", n)
		}
	})
}

func TestReplacedCertificateIsTakenUp(t *testing.T) {
	p := newPeer(t, transports[0], nil, reader(make(chan int64, 2)))
	good, err := os.ReadFile(p.endpoint.CertFile)
	must(t, err)
	must(t, os.WriteFile(p.endpoint.CertFile, []byte("half a file"), 0o600))
	_, err = Dial(testContext(t), p.endpoint)
	wantReason(t, err, FileInvalid)
	must(t, os.WriteFile(p.endpoint.CertFile, good, 0o600))
	if proof, err := dialPeer(t, p.endpoint).HalfClose(testContext(t)); proof != Confirmed {
		t.Errorf("HalfClose = %v, %v", proof, err)
	}
}

func TestCertificateFiles(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "client", time.Now().Add(time.Hour))
	_, otherKey := ca.issue(t, "other", time.Now().Add(time.Hour))
	expiredCert, expiredKey := ca.issue(t, "client", time.Now().Add(-time.Hour))
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	text := file("text", "no PEM")
	encrypted := file("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	rotten := file("rotten", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	missing := filepath.Join(dir, "missing")

	for name, c := range map[string]struct {
		chain, cert, key string
		want             Reason
		names            string
	}{
		"chain missing":    {missing, cert, key, FileMissing, missing},
		"cert missing":     {ca.file, missing, key, FileMissing, missing},
		"key missing":      {ca.file, cert, missing, FileMissing, missing},
		"cert a directory": {ca.file, dir, key, FileUnreadable, dir},
		"chain no PEM":     {text, cert, key, FileInvalid, text},
		"cert no PEM":      {ca.file, text, key, FileInvalid, text},
		"key no PEM":       {ca.file, cert, text, FileInvalid, text},
		"cert rotten":      {ca.file, rotten, key, FileInvalid, rotten},
		"key encrypted":    {ca.file, cert, encrypted, FileInvalid, "encrypted"},
		"swapped":          {ca.file, key, cert, FileInvalid, key},
		"other key":        {ca.file, cert, otherKey, KeyMismatch, otherKey},
		"expired":          {ca.file, expiredCert, expiredKey, CertificateExpired, "valid from"},
		"cert alone":       {ca.file, cert, "", BadSettings, cert},
	} {
		t.Run(name, func(t *testing.T) {
			e := Endpoint{Kind: TLS, Address: "127.0.0.1", Port: 1, ChainFile: c.chain, CertFile: c.cert, KeyFile: c.key,
				Dialer: func(context.Context, string, string) (net.Conn, error) {
					t.Error("dialled with files that cannot be used")
					return nil, errors.New("not wanted")
				}}
			_, err := Dial(testContext(t), e)
			wantReason(t, err, c.want)
			if err == nil || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%v does not say %q", err, c.names)
			}
		})
	}

	t.Run("unreadable", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root reads everything")
		}
		must(t, os.Chmod(key, 0))
		_, err := Dial(testContext(t), Endpoint{Kind: TLS, Address: "127.0.0.1", Port: 1, CertFile: cert, KeyFile: key})
		wantReason(t, err, FileUnreadable)
		if !strings.Contains(fault.Hint(err), "chown") {
			t.Errorf("hint %q", fault.Hint(err))
		}
	})
}

func TestDialFailures(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	_, err = Dial(testContext(t), Endpoint{Kind: TCP, Address: "127.0.0.1", Port: port})
	wantReason(t, err, Refused)

	_, err = Dial(testContext(t), Endpoint{Kind: TCP, Address: "", Port: 443})
	wantReason(t, err, BadSettings)
	_, err = Dial(testContext(t), Endpoint{Kind: TCP, Address: "127.0.0.1", Port: 65536})
	wantReason(t, err, BadSettings)

	// Plain text where TLS is expected.
	p := newPeer(t, transports[2], nil, func(l *link) { _, _ = io.WriteString(l.stream, "220 hello\r\n") })
	p.endpoint.Kind = TLS
	_, err = Dial(testContext(t), p.endpoint)
	wantReason(t, err, Protocol)

	// A listener that accepts and then says nothing.
	mute := newPeer(t, transports[2], nil, untilEnd)
	mute.endpoint.Kind, mute.endpoint.DialTimeout = TLS, 50*time.Millisecond
	_, err = Dial(testContext(t), mute.endpoint)
	wantReason(t, err, TimedOut)

	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	mute.endpoint.DialTimeout = patience
	var f *Failure
	if _, err = Dial(ctx, mute.endpoint); !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("cancelled Dial = %v", err)
	}
}

func TestClassify(t *testing.T) {
	if Classify(nil) != nil {
		t.Error("nil became an error")
	}
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "nowhere.test", Err: "no such host", IsNotFound: true}}, NoSuchHost},
		{&net.DNSError{Name: "slow.test", Err: "timeout", IsTimeout: true}, TimedOut},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, Refused},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, Unreachable},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, ConnectionReset},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, TimedOut},
		{context.DeadlineExceeded, TimedOut},
		{io.ErrUnexpectedEOF, ClosedByPeer},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: expired certificate")}, ClientCertificate},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: revoked certificate")}, ClientCertificate},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, ClientCertificate},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: unknown certificate authority")}, ClientCertificate},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: protocol version not supported")}, Protocol},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, Other},
		{errors.New("something else"), Other},
	} {
		got := Classify(c.err)
		wantReason(t, got, c.want)
		if !errors.Is(got, c.err) {
			t.Errorf("%v lost its cause", got)
		}
		if again := Classify(got); again != got {
			t.Errorf("classified twice: %v", again)
		}
	}
}
