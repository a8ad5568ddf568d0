// Package bus is the services' way onto NATS JetStream: one connection that reconnects for ever, the one
// declaration of streams, buckets and consumers, atomic batches, multi-key look-ups and pulls.
//
// Everything here keeps one rule: unknown is not failed and not done. A publish that timed out may have
// been stored, so every function says what it did about that, and every retry is safe either way.
package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// requestTimeout bounds every single request to the server; a slower one is retried by its caller.
const requestTimeout = 10 * time.Second

// Settings say how to reach the server.
type Settings struct {
	// URL is nats://host:port or tls://…, several separated by commas. Unused with InProcess.
	URL string
	// InProcess connects to an embedded server without a socket.
	InProcess nats.InProcessConnProvider
	// User and Password authenticate, if set. The user also decides where answers come in: [InboxPrefix].
	User     string
	Password secret.String
	// CA, Cert and Key are PEM files for TLS; Cert and Key are the client's certificate.
	CA, Cert, Key string
	// TLS insists on TLS also where the URL does not say so and no file is named.
	TLS bool
	// Name is what the server shows for this connection: service and instance.
	Name string
	// Logger gets one line when the connection is lost, one when it is back, one when the first one cannot be made,
	// and one for each refused permission that no call waits for.
	Logger *slog.Logger
}

// Bus is one connection with a JetStream context. It is safe for concurrent use.
type Bus struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	logger *slog.Logger
	closed chan struct{}
	user   string
	ca     string // PEM files, "" for none
	cert   string
	stuck  *telemetry.Incident // publishes that are refused again and again
	away   *telemetry.Incident // the connection that cannot be made
	// damaged are messages that cannot be read.
	damaged *telemetry.Incident

	mu      sync.Mutex
	watches map[*watch]struct{}
	refused map[refusal]bool // the kinds already complained about
	deaf    error            // no answer reaches this connection
	lost    error            // why there is no connection
	// withheld says of each stream that takes no message why not.
	withheld map[string]error
}

// Connect opens the connection. When the server cannot be reached it still returns a Bus, which keeps
// trying for ever; only settings that can never work are an error (unreadable certificate, malformed URL).
func Connect(s Settings) (*Bus, error) {
	b := &Bus{
		logger: s.Logger, user: s.User, ca: s.CA, cert: s.Cert, closed: make(chan struct{}), watches: map[*watch]struct{}{}, refused: map[refusal]bool{}, withheld: map[string]error{},
		stuck: telemetry.NewIncident(s.Logger, "publishing"), away: telemetry.NewIncident(s.Logger, "connecting to the bus"),
		damaged: telemetry.NewIncident(s.Logger, "reading what the bus has stored"),
	}
	options := []nats.Option{
		nats.Name(s.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(500*time.Millisecond, time.Second),
		// No buffering of unsent publishes: a publish fails at once and its caller, who knows whether a
		// retry is safe, tries again.
		nats.ReconnectBufSize(-1),
		// A look-up subscribes for its answers, at most a thousand; the default queue would be half a megabyte
		// each time.
		nats.SyncQueueLen(2 * maxLookup),
		// A server that answers no more is given up after 10 to 15 s, for another node if there is one.
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		// A password may be replaced, so a wrong one is no reason to give up either.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.fail(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.logger.Warn("connection to the bus lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			b.connected()
			b.logger.Info("connected to the bus", "url", c.ConnectedUrlRedacted())
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { b.complain(err) }),
	}
	if s.User != "" {
		options = append(options, nats.UserInfoHandler(s.credentials), nats.CustomInboxPrefix(InboxPrefix(s.User)))
	}
	url := s.URL
	if s.InProcess != nil {
		options = append(options, nats.InProcessServer(s.InProcess))
		url = ""
	} else if s.TLS || s.CA != "" || s.Cert != "" {
		config, err := tlsConfig(s)
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Secure(config))
	}
	conn, err := nats.Connect(url, options...)
	if err != nil {
		return nil, fmt.Errorf("bus.url %q: %w", url, err)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(requestTimeout),
		jetstream.WithPublishAsyncTimeout(requestTimeout), jetstream.WithPublishAsyncMaxPending(4*maxBatch))
	if err != nil {
		conn.Close()
		return nil, err
	}
	b.conn, b.js = conn, js
	return b, nil
}

// credentials are read anew for each connection, so that a password can be replaced in its file.
func (s Settings) credentials() (user, password string) {
	latest, err := s.Password.Latest()
	if err != nil {
		latest = s.Password // the one that was there; the server decides
	}
	return s.User, latest.Reveal()
}

func tlsConfig(s Settings) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("bus.tls.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("bus.tls.ca: %s holds no PEM certificate", s.CA)
		}
	}
	if s.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, fmt.Errorf("bus.tls.cert, bus.tls.key: %w", err)
		}
		// Read anew for each connection, so that a certificate can be replaced; a pair that is just being written leaves
		// the last one in use. The client connects from one goroutine.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if latest, err := tls.LoadX509KeyPair(s.Cert, s.Key); err == nil {
				pair = latest
			}
			return &pair, nil
		}
	}
	return config, nil
}

// complain takes an asynchronous error.
func (b *Bus) complain(err error) {
	if r, ok := parseRefusal(b.user, err); ok {
		b.refuse(r)
		return
	}
	if errors.Is(err, nats.ErrAuthorization) {
		b.fail(err)
		return
	}
	b.logger.Warn("bus", "error", err)
}

// fail notes why there is no connection.
func (b *Bus) fail(err error) {
	err = connectError(b.user, err)
	b.mu.Lock()
	b.lost = err
	b.mu.Unlock()
	b.away.Report(err)
}

func (b *Bus) connected() {
	b.mu.Lock()
	b.lost, b.deaf = nil, nil
	b.mu.Unlock()
	b.away.Resolve()
}

// connectError says what to do about a connection that cannot be made.
func connectError(user string, err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return fault.WithHint(fmt.Errorf("the bus does not know user %q with this password: %w", user, err), "are bus.user and bus.password those of the server's configuration?")
	case errors.As(err, &unknown):
		return fault.WithHint(err, "bus.tls.ca is to be the PEM file of the authority that signed the nats-server's certificate")
	case errors.As(err, &name):
		return fault.WithHint(err, "the nats-server's certificate is to hold the name that bus.url has")
	case errors.Is(err, nats.ErrSecureConnRequired):
		return fault.WithHint(err, "the nats-server demands TLS: set bus.tls.ca, and tls:// in bus.url")
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fault.WithHint(err, "the nats-server offers no TLS: give it a certificate (docs/privilege.md), or remove bus.tls and tls:// from bus.url")
	}
	return err
}

// JetStream gives the context for what this package does not wrap.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Conn gives the connection.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// Storing is nil while the connection is up and no publish has been waiting for more than 10 s to be stored; for
// readiness checks. Else it says why, as far as that is known.
func (b *Bus) Storing() error {
	if err := b.Connected(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, stream := range slices.Sorted(maps.Keys(b.withheld)) {
		return b.withheld[stream]
	}
	return nil
}

// Connected is nil while the connection is up. Else it says why, as far as that is known.
func (b *Bus) Connected() error {
	s := b.conn.Status()
	if s == nats.CONNECTED {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost != nil {
		return fmt.Errorf("bus: %s: %w", s, b.lost)
	}
	return fmt.Errorf("bus: %s", s)
}

// Connections counts the connections so far, this one included: while it does not change, the server was not restarted.
func (b *Bus) Connections() uint64 { return b.conn.Stats().Reconnects + 1 }

// KeyValue binds to a provisioned bucket.
func (b *Bus) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+proto.BucketStream(bucket))...)
	kv, err := b.js.KeyValue(ctx, bucket)
	if err = explain(err); err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return &keyValue{KeyValue: kv, bus: b, bucket: bucket}, nil
}

// Stream binds to a provisioned stream.
func (b *Bus) Stream(ctx context.Context, stream string) (jetstream.Stream, error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+stream)...)
	s, err := b.js.Stream(ctx, stream)
	return s, explain(err)
}

// Consumer binds to a provisioned consumer.
func (b *Bus) Consumer(ctx context.Context, stream, consumer string) (jetstream.Consumer, error) {
	ctx, explain := b.guard(ctx, api("CONSUMER.INFO."+stream+"."+consumer)...)
	c, err := b.js.Consumer(ctx, stream, consumer)
	return c, explain(err)
}

// Close flushes what was published and closes the connection, waiting at most until ctx ends. It can be
// called again.
func (b *Bus) Close(ctx context.Context) error {
	if b.conn.IsClosed() {
		return nil
	}
	var err error
	if b.conn.IsConnected() { // else nothing waits to be sent: it is not buffered
		err = b.conn.FlushWithContext(ctx)
	}
	b.conn.Close()
	select {
	case <-b.closed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("flush the bus connection: %w", err)
	}
	return nil
}
