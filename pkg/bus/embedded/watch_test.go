package embedded

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
)

func newServer(t *testing.T, stuck func(error)) *Server {
	t.Helper()
	s, err := Start(Settings{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Stuck: stuck})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return s
}

// unwatched leaves it to the test what happens to the server.
func (s *Server) unwatched() {
	s.endWait()
	<-s.watched
}

// Who is connected, in the process or by the connection file, is connected again after a restart, and what was
// acknowledged is there.
func TestRestartKeepsConnectionsAndMessages(t *testing.T) {
	s := newServer(t, nil)
	s.unwatched()
	file, err := bus.ReadConnection(s.settings.Dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var conns []*nats.Conn
	for _, o := range []nats.Option{nats.InProcessServer(s.InProcess()), nil} {
		url := file.URL
		if o != nil {
			url = ""
		}
		conn, err := nats.Connect(url, o, nats.UserInfo(file.User, file.Token), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		conns = append(conns, conn)
	}
	js, err := jetstream.New(conns[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := js.Publish(ctx, "s", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	before := s.running
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	if s.running == before {
		t.Fatal("the same server")
	}
	if after, err := bus.ReadConnection(s.settings.Dir); err != nil || after != file {
		t.Errorf("the connection file is %+v, %v", after, err)
	}
	for i, conn := range conns {
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			stream, err := js.Stream(ctx, "S")
			if err == nil {
				if n := stream.CachedInfo().State.Msgs; n != 10 {
					t.Errorf("%d messages, want 10", n)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
	}
}

// While another program has the port no server runs; when it is free again, one does.
func TestRestartWaitsForItsPort(t *testing.T) {
	s := newServer(t, nil)
	s.unwatched()
	s.running.Shutdown()
	s.running.WaitForShutdown()
	taken, err := net.Listen("tcp", s.conn.URL[len("nats://"):])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.restart(); err == nil {
		t.Error("it runs on a port that is taken")
	}
	if _, err := s.InProcessConn(); err == nil {
		t.Error("it gives a connection to no server")
	}
	if s.inspect(&inspection{}) == nil {
		t.Error("it finds nothing wrong")
	}
	taken.Close()
	if err := s.restart(); err != nil {
		t.Error(err)
	}
	if err := s.inspect(&inspection{}); err != nil {
		t.Error(err)
	}
}

// A server that is well again behind the test of the room is left alone: what held up both was the disk.
func TestASlowServerIsNotRestarted(t *testing.T) {
	s := newServer(t, nil)
	s.unwatched()
	config := s.running.JetStreamConfig()
	if err := s.running.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	look := &inspection{}
	if s.inspect(look) == nil {
		t.Fatal("nothing seems to be wrong")
	}
	if s.restartHelps(look, func(int) error { return errors.New("no space left on device") }) {
		t.Error("it is restarted without room")
	}
	if !s.restartHelps(look, s.tryRoom) {
		t.Error("it is left alone as it is")
	}
	if s.restartHelps(look, func(int) error { return s.running.EnableJetStream(config) }) {
		t.Error("it is restarted although it is well again")
	}
}

// A server that does not stop is given up: the process is told, and stopping does not wait for it.
func TestStuckServer(t *testing.T) {
	was := stopTime
	stopTime = 0
	t.Cleanup(func() { stopTime = was })
	told := make(chan error, 1)
	s := newServer(t, func(err error) { told <- err })
	running := s.running
	if err := running.DisableJetStream(); err != nil { // as it does itself after some errors
		t.Fatal(err)
	}
	select {
	case err := <-told:
		if !errors.Is(err, ErrStuck) {
			t.Errorf("told %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	if s.Err() == nil {
		t.Error("nothing seems to be wrong")
	}
	if err := s.Shutdown(t.Context()); !errors.Is(err, ErrStuck) {
		t.Errorf("stopped with %v", err)
	}
	running.WaitForShutdown() // here it does stop, only too late
}

// What the server says again and again is one line, and another when it is over.
func TestErrorsAreCounted(t *testing.T) {
	lines := make(chan string, 100)
	l := newLogger(slog.New(lineHandler{slog.DiscardHandler, lines}))
	for range 50 {
		l.Errorf("JetStream failed to store a msg on stream '%s': %v", "RAW", errors.New("no space left on device"))
	}
	l.settle()
	if len(lines) != 1 {
		t.Errorf("%d lines, want 1", len(lines))
	}
	l.last = time.Now().Add(-2 * quietAfter)
	l.settle()
	if len(lines) != 2 {
		t.Errorf("%d lines, want 2", len(lines))
	}
}

type lineHandler struct {
	slog.Handler
	to chan string
}

func (h lineHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h lineHandler) Handle(_ context.Context, r slog.Record) error {
	h.to <- r.Message
	return nil
}
