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
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/secret"
	"defenderiot/pkg/telemetry"
)

// requestTimeout bounds every single request to the server; a slower one is retried by its caller.
const requestTimeout = 10 * time.Second

// Settings say how to reach the server.
type Settings struct {
	// URL is nats://host:port or tls://…, several separated by commas. Unused with InProcess.
	URL string
	// InProcess connects to an embedded server without a socket.
	InProcess nats.InProcessConnProvider
	// User and Password authenticate, if set.
	User     string
	Password secret.String
	// CA, Cert and Key are PEM files for TLS; Cert and Key are the client's certificate.
	CA, Cert, Key string
	// TLS insists on TLS also where the URL does not say so and no file is named.
	TLS bool
	// Name is what the server shows for this connection: service and instance.
	Name string
	// Logger gets one line when the connection is lost, one when it is back, and one a refused permission.
	Logger *slog.Logger
}

// Bus is one connection with a JetStream context. It is safe for concurrent use.
type Bus struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	logger *slog.Logger
	closed chan struct{}
	stuck  *telemetry.Incident // publishes that are refused again and again

	mu      sync.Mutex
	refused map[string]bool // permissions already complained about
}

// Connect opens the connection. When the server cannot be reached it still returns a Bus, which keeps
// trying for ever; only settings that can never work are an error (unreadable certificate, malformed URL).
func Connect(s Settings) (*Bus, error) {
	b := &Bus{logger: s.Logger, closed: make(chan struct{}), refused: map[string]bool{}, stuck: telemetry.NewIncident(s.Logger, "publishing")}
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
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.logger.Warn("connection to the bus lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			b.logger.Info("connected to the bus", "url", c.ConnectedUrlRedacted())
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { b.complain(err) }),
	}
	if s.User != "" {
		options = append(options, nats.UserInfo(s.User, s.Password.Reveal()))
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
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// complain logs an asynchronous error. A refused permission looks like a time-out to its caller, so this
// line is the only place that tells the reason; it is logged once for each subject.
func (b *Bus) complain(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) || strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		b.mu.Lock()
		known := b.refused[err.Error()]
		if len(b.refused) < 100 {
			b.refused[err.Error()] = true
		}
		b.mu.Unlock()
		if !known {
			b.logger.Error("the bus refuses a permission to this user; grant it in the server's configuration", "error", err)
		}
		return
	}
	b.logger.Warn("bus", "error", err)
}

// JetStream gives the context for what this package does not wrap.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Conn gives the connection.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// Connected is nil while the connection is up; for readiness checks.
func (b *Bus) Connected() error {
	if s := b.conn.Status(); s != nats.CONNECTED {
		return fmt.Errorf("bus: %s", s)
	}
	return nil
}

// KeyValue binds to a provisioned bucket.
func (b *Bus) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	kv, err := b.js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return kv, nil
}

// Close flushes what was published and closes the connection, waiting at most until ctx ends. It can be
// called again.
func (b *Bus) Close(ctx context.Context) error {
	if b.conn.IsClosed() {
		return nil
	}
	err := b.conn.FlushWithContext(ctx)
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
