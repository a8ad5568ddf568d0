package devo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the deadline of whatever a test waits for; it is reached only when a test fails.
const patience = 30 * time.Second

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("test CA %d", time.Now().UnixNano())},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	a := &authority{cert: cert, key: key, file: filepath.Join(t.TempDir(), "chain.crt")}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// issue returns the files of a certificate for name, valid until end.
func (a *authority) issue(t testing.TB, name string, end time.Time) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "domain.crt"), filepath.Join(dir, "domain.key")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
	return certFile, keyFile
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serverName is the name in the test servers' certificates.
const serverName = "collector.test"

// transport is one way to connect; every test of a connection's end runs over all of them.
type transport struct {
	name    string
	kind    Kind
	version uint16
}

var transports = []transport{
	{"tls13", TLS, tls.VersionTLS13},
	{"tls12", TLS, tls.VersionTLS12},
	{"tcp", TCP, 0},
}

// peer is a listening endpoint whose behaviour is the test's.
type peer struct {
	endpoint Endpoint
	ca       *authority
	server   *tls.Config // nil over TCP

	mu   sync.Mutex
	open []net.Conn
}

// link is the peer's side of one connection: raw below TLS, and the stream above it.
type link struct {
	raw    *net.TCPConn
	tls    *tls.Conn // nil over TCP
	stream io.ReadWriter
}

// end ends the peer's half politely: close_notify over TLS, then FIN.
func (l *link) end() {
	if l.tls != nil {
		_ = l.tls.CloseWrite()
	}
	_ = l.raw.CloseWrite()
}

// reset throws the connection away.
func (l *link) reset() {
	_ = l.raw.SetLinger(0)
	_ = l.raw.Close()
}

// newPeer listens and gives each connection to serve, whose end closes the connection. It trusts client
// certificates of its own CA. change, if not nil, may change it before it listens.
func newPeer(t testing.TB, tr transport, change func(*peer), serve func(*link)) *peer {
	t.Helper()
	p := &peer{ca: newAuthority(t)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.endpoint = Endpoint{Kind: tr.kind, Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port}
	if tr.kind == TLS {
		cert, key := p.ca.issue(t, serverName, time.Now().Add(time.Hour))
		p.endpoint.ServerName, p.endpoint.ChainFile = serverName, p.ca.file
		p.endpoint.CertFile, p.endpoint.KeyFile = p.ca.issue(t, "client", time.Now().Add(time.Hour))
		p.server = &tls.Config{MinVersion: tr.version, MaxVersion: tr.version, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
		p.server.ClientCAs.AddCert(p.ca.cert)
		p.use(t, cert, key)
	}
	if change != nil {
		change(p)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.open = append(p.open, conn)
			p.mu.Unlock()
			tasks.Go(func() {
				defer conn.Close()
				l := &link{raw: conn.(*net.TCPConn)}
				l.stream = l.raw
				if p.server != nil {
					l.tls = tls.Server(conn, p.server)
					l.stream = l.tls
					if l.tls.Handshake() != nil {
						return
					}
				}
				serve(l)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for _, conn := range p.open {
			conn.Close()
		}
		p.mu.Unlock()
		tasks.Wait()
	})
	return p
}

// use makes the peer show that certificate.
func (p *peer) use(t testing.TB, certFile, keyFile string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	must(t, err)
	p.server.Certificates = []tls.Certificate{cert}
}

// dialPeer dials and closes at the end of the test.
func dialPeer(t testing.TB, e Endpoint) *Conn {
	t.Helper()
	c, err := Dial(testContext(t), e)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits for a condition that something else brings about.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// waitGone waits for the connection's end.
func waitGone(t testing.TB, c *Conn) {
	t.Helper()
	select {
	case <-c.Gone():
	case <-time.After(patience):
		t.Fatal("the end of the connection was not noticed")
	}
}
