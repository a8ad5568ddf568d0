// Package bustest gives tests a real bus: the embedded server in a folder of the test, provisioned.
package bustest

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
)

// Topology is a small complete one with the given outputs, which read from the beginning.
func Topology(outputs ...string) bus.Topology {
	t := bus.Topology{
		Replicas: 1, RawBytes: 256 << 20, UniqueBytes: 256 << 20,
		UniqueRetention: time.Hour, HashRetention: 24 * time.Hour,
	}
	for _, name := range outputs {
		t.Outputs = append(t.Outputs, bus.Output{Name: name, From: "beginning"})
	}
	return t
}

// Logger drops everything.
func Logger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// New starts a server, provisions topology and returns a connection; all of it ends with the test.
func New(t testing.TB, topology bus.Topology) *bus.Bus {
	t.Helper()
	server := Server(t, t.TempDir())
	b := Connect(t, server)
	if _, err := b.Provision(Context(t), topology, false); err != nil {
		t.Fatalf("provision: %v", err)
	}
	return b
}

// Server starts an embedded server on dir.
func Server(t testing.TB, dir string) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(embedded.Settings{Dir: dir, Listen: "127.0.0.1:0", Logger: Logger()})
	if err != nil {
		t.Fatalf("embedded server: %v", err)
	}
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	return server
}

// Connect opens one more connection to server.
func Connect(t testing.TB, server *embedded.Server) *bus.Bus {
	t.Helper()
	c := server.Connection()
	b, err := bus.Connect(bus.Settings{InProcess: server.InProcess(), User: c.User, Password: c.Secret(), Name: t.Name(), Logger: Logger()})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { closeSoon(b) })
	return b
}

func closeSoon(b *bus.Bus) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = b.Close(ctx)
}

// Context ends with the test, or after a minute.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
