package devo

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"time"
)

// Kind is the transport of an endpoint.
type Kind uint8

const (
	// TLS is TLS 1.2 or newer, usually with a client certificate: outputs devo_platform and relay.
	TLS Kind = iota
	// TCP is plain TCP: outputs syslog, sidecar and in_house_relay.
	TCP
)

// DefaultDialTimeout bounds connecting and the TLS handshake together.
const DefaultDialTimeout = 10 * time.Second

// Endpoint says where and how to connect. It is a plain value; nothing is read or opened before [Dial].
type Endpoint struct {
	Kind Kind
	// Address is a host name or an IP address, without port.
	Address string
	// Port is 1 to 65535.
	Port int

	// ServerName is the name to verify and to ask for (SNI); empty: Address.
	ServerName string
	// ChainFile is a PEM bundle of CAs that are trusted besides the system's; it may be empty.
	ChainFile string
	// CertFile and KeyFile are our client certificate, with its intermediates, and its key, both PEM.
	// Both or neither; Devo's cloud endpoints tell the domain by it.
	CertFile, KeyFile string
	// SkipVerification accepts any server certificate. Our own is still sent. Whoever sets it warns
	// about it: the events can then go to anyone in the path.
	SkipVerification bool
	// Keyring remembers the files' content for when one of them is being replaced; nil: [Dial] fails then.
	Keyring *Keyring

	// DialTimeout bounds connecting and the handshake; 0: [DefaultDialTimeout].
	DialTimeout time.Duration
	// Dialer replaces the direct TCP connect, for proxies and tests; nil: direct. Whatever it wrote on
	// the connection itself must have been answered before it returns, or [Conn.Acked] counts too much.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
}

// String returns host:port.
func (e Endpoint) String() string { return net.JoinHostPort(e.Address, strconv.Itoa(e.Port)) }

// tlsConfig reads the certificates from disk: it runs at each dial, so that replaced files are taken up without a restart.
func (e Endpoint) tlsConfig(now time.Time) (*tls.Config, error) {
	keys, err := e.read(now)
	if err != nil {
		return nil, err
	}
	cert := keys.pair
	if cert != nil {
		if err := checkDates(cert, e.CertFile, now); err != nil {
			return nil, err
		}
	}
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         e.ServerName,
		RootCAs:            systemRoots(),
		InsecureSkipVerify: e.SkipVerification,
	}
	for _, ca := range keys.chain {
		cfg.RootCAs.AddCert(ca)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = e.Address
	}
	if cert == nil {
		return cfg, nil
	}
	// Not cfg.Certificates: from those crypto/tls sends none at all when the endpoint's list of
	// acceptable CAs does not name the issuer. Sent always, the endpoint can say what is wrong.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return cfg, nil
}

// connect opens the raw connection.
func (e Endpoint) connect(ctx context.Context) (net.Conn, error) {
	if e.Address == "" || e.Port < 1 || e.Port > 65535 {
		return nil, failure(BadSettings, nil, "set the output's address to a host name and its port to 1 to 65535",
			"address %q with port %d is no endpoint", e.Address, e.Port)
	}
	dial := e.Dialer
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", e.String())
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Finds a dead peer on an idle connection within 30 s. While data is under way the keep-alive
		// timer does not run; the user timeout of the kernel part covers that.
		err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
		if err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
