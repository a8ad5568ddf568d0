package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
)

// BusDir is where the embedded server of a configuration keeps everything.
func BusDir(c *config.Config) string { return filepath.Join(c.StateDir(), "bus") }

// Connect opens a connection to the configured server, or to the embedded server of the collector that
// runs on the state folder.
func Connect(c *config.Config, name string, logger *slog.Logger) (*bus.Bus, error) {
	s := bus.Settings{URL: c.Bus.URL, User: c.Bus.User, Password: c.Bus.Password, Name: name, Logger: logger}
	if tls := c.Bus.TLS; tls != nil {
		s.TLS = true
		s.CA, s.Cert, s.Key = c.CertPath(tls.CA), c.CertPath(tls.Cert), c.CertPath(tls.Key)
	}
	if c.Bus.IsEmbedded() {
		running, err := bus.ReadConnection(BusDir(c))
		if err != nil {
			return nil, err
		}
		s.URL, s.User, s.Password = running.URL, running.User, running.Secret()
	}
	return bus.Connect(s)
}

// Topology is everything that the configuration asks for on the bus.
func Topology(c *config.Config) bus.Topology {
	t := bus.Topology{
		Replicas:        c.Bus.Replicas,
		RawBytes:        int64(c.Bus.Limits.Raw),
		UniqueBytes:     int64(c.Bus.Limits.Unique),
		UniqueRetention: c.Bus.Retention.Unique.Std(),
		HashRetention:   c.Bus.Retention.Hashes.Std(),
	}
	for name, o := range c.Outputs {
		t.Outputs = append(t.Outputs, bus.Output{Name: name, From: o.Config.From.String(), Internal: c.SendsInternal(o)})
	}
	return t
}

// Endpoint gives the endpoint of an output that is no console.
func Endpoint(c *config.Config, o config.Output) devo.Endpoint {
	e := devo.Endpoint{Kind: devo.TCP, Address: o.Config.Address, Port: o.Config.Port}
	if o.Transport() == config.TransportTLS {
		e.Kind = devo.TLS
		e.ServerName = o.Config.ServerName
		e.ChainFile, e.CertFile, e.KeyFile = c.CertPath(o.Config.Chain), c.CertPath(o.Config.Cert), c.CertPath(o.Config.Key)
		e.SkipVerification = !o.Config.VerifyCertificate
	}
	return e
}

// WarnIfLazy warns when a single server acknowledges before it has written to disk: then a power failure
// loses what was acknowledged last. Only the server's monitoring page tells, so it is asked on its usual
// port; where it does not answer, or another server does, an info line says that nobody knows. It takes at most 2 s.
func WarnIfLazy(ctx context.Context, b *bus.Bus, logger *slog.Logger) {
	warnIfLazy(ctx, b.Conn(), monitoringPort, logger)
}

func warnIfLazy(ctx context.Context, conn *nats.Conn, port string, logger *slog.Logger) {
	always, err := syncsAlways(ctx, conn, port)
	switch {
	case err != nil:
		logger.Info("could not see whether the bus server runs with sync_interval: always, which one replica needs for durability", "reason", err)
	case !always:
		logger.Warn("the bus server runs without sync_interval: always and bus.replicas is 1: a power failure loses up to two minutes of what was acknowledged; set `jetstream { sync_interval: always }` in its configuration")
	}
}

// monitoringPort is the server's documented one.
const monitoringPort = "8222"

func syncsAlways(ctx context.Context, conn *nats.Conn, port string) (bool, error) {
	server, id := conn.ConnectedUrl(), conn.ConnectedServerId()
	if server == "" {
		return false, errors.New("the connection to the bus is lost")
	}
	u, err := url.Parse(server)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	page := "http://" + net.JoinHostPort(u.Hostname(), port) + "/varz"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return false, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end or given up
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: HTTP status %d", page, response.StatusCode)
	}
	var varz struct {
		ServerID  string `json:"server_id"`
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&varz); err != nil {
		return false, fmt.Errorf("%s: %w", page, err)
	}
	if varz.ServerID != id {
		return false, fmt.Errorf("%s is not the page of the server that the bus runs on", page)
	}
	return varz.JetStream.Config.SyncAlways, nil
}
