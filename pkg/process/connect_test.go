package process

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"defenderiot/pkg/bus"
)

// natsServer is a server of its own as an operator runs one; it ends with the test.
func natsServer(t *testing.T, always bool) (conn *bus.Bus, monitoringPort string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
		NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: always,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	b, err := bus.Connect(bus.Settings{URL: s.ClientURL(), Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = b.Close(ctx)
	})
	return b, strconv.Itoa(s.MonitorAddr().Port)
}

func TestWarnIfLazy(t *testing.T) {
	said := func(b *bus.Bus, port string) string {
		var out bytes.Buffer
		warnIfLazy(t.Context(), b.Conn(), port, slog.New(slog.NewTextHandler(&out, nil)))
		return out.String()
	}
	durable, durablePort := natsServer(t, true)
	if got := said(durable, durablePort); got != "" {
		t.Errorf("with sync_interval: always: %s", got)
	}
	lazy, lazyPort := natsServer(t, false)
	if got := said(lazy, lazyPort); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "sync_interval: always") || strings.Count(got, "\n") != 1 {
		t.Errorf("without sync_interval: always: %s", got)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closedPort, _ := net.SplitHostPort(closed.Addr().String())
	_ = closed.Close()
	for name, got := range map[string]string{
		"nothing on the port":         said(lazy, closedPort),
		"another server's page":       said(lazy, durablePort),
		"another server's lazy page":  said(durable, lazyPort),
		"something else on the port":  said(lazy, portOf(t, lazy)),
		"a port that cannot be taken": said(lazy, "none"),
	} {
		if !strings.Contains(got, "level=INFO") || !strings.Contains(got, "could not see whether") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// portOf is where the server speaks NATS, which is no HTTP.
func portOf(t *testing.T, b *bus.Bus) string {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(b.Conn().ConnectedUrl(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	return port
}
