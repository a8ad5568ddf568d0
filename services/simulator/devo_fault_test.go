package simulator_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// flood writes until the connection fails or the time is over.
func (c *connection) flood() error {
	for n := 0; ; n++ {
		if _, err := io.WriteString(c, frame(n)); err != nil {
			return err
		}
	}
}

func TestStallThenReset(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AfterFrames: 50, Stall: 100 * time.Millisecond, End: simulator.Reset})
	c := e.dial(t)
	err := c.flood()
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error %v, want a reset", err)
	}
	eventually(t, "broken", func() bool { return e.Stats().Broken == 1 })
	if s := e.Stats(); s.Frames != 50 || s.HalfCloses != 0 {
		t.Errorf("stats %+v, want 50 frames", s)
	}
	next := e.dial(t)
	next.send(t, frame(1))
	if secure, raw := next.finish(t); secure != nil || raw != nil {
		t.Errorf("the next connection: %v, %v", secure, raw)
	}
}

// A polite close over unread data: TLS sees an orderly end, the socket a reset.
func TestCloseWithUnreadData(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AfterFrames: 3, End: simulator.CloseUnread})
	c := e.dial(t)
	c.send(t, frames(0, 3))
	eventually(t, "frames read", func() bool { return e.Stats().Frames == 3 })
	c.send(t, frame(4)) // stays in the kernel
	_, secure := io.Copy(io.Discard, c)
	_, raw := io.Copy(io.Discard, c.raw)
	if secure != nil {
		t.Errorf("TLS says %v, want an orderly end", secure)
	}
	if !errors.Is(raw, syscall.ECONNRESET) {
		t.Errorf("the socket says %v, want a reset", raw)
	}
	if got := e.Stats().Frames; got != 3 {
		t.Errorf("%d frames, want 3", got)
	}
}

// A program that is stopped: a FIN behind the client's half-close, no reset, and yet data was lost.
func TestShutWithUnreadData(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AfterFrames: 3, End: simulator.ShutUnread})
	c := e.dial(t)
	c.send(t, frames(0, 3))
	eventually(t, "frames read", func() bool { return e.Stats().Frames == 3 })
	c.send(t, frame(4)) // stays in the kernel
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.raw.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c.raw); err != nil {
		t.Errorf("the socket says %v after %d bytes, want a FIN", err, n)
	}
	if got := e.Stats().Frames; got != 3 {
		t.Errorf("%d frames, want 3", got)
	}
}

func TestCloseUnasked(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AfterFrames: 1, End: simulator.CloseOrderly})
	c := e.dial(t)
	c.send(t, frame(1))
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the end was %v, want an orderly one", err)
	}
}

func TestNoAnswerToHalfClose(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{NoAnswer: true})
	c := e.dial(t)
	c.send(t, frames(0, 10))
	if err := errors.Join(c.CloseWrite(), c.raw.CloseWrite(), c.SetReadDeadline(time.Now().Add(200*time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read: %v, want a timeout", err)
	}
	if got := e.Stats(); got.Frames != 10 || got.HalfCloses != 0 {
		t.Errorf("stats %+v", got)
	}
	e.Clear()
	eventually(t, "released", func() bool { return e.Stats().Open == 0 })
}

func TestLateAnswerToHalfClose(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AnswerDelay: 100 * time.Millisecond})
	c := e.dial(t)
	c.send(t, frame(1))
	began := time.Now()
	if secure, raw := c.finish(t); secure != nil || raw != nil {
		t.Errorf("the end was %v and %v", secure, raw)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

func TestRefusedCertificateIsLearntByReading(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{Refuse: true})
	c := e.dial(t)
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("read: %v, want an alert", err)
	}
}

func TestDroppedAfterAccept(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{Drop: true, Connections: 2})
	for range 2 {
		if c, err := e.tryDial(e.config()); err == nil {
			c.raw.Close()
			t.Error("the handshake passed")
		}
	}
	e.dial(t)
}

func TestThrottleAndLiveFaults(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{ReceiveBuffer: 128 << 10})
	e.Fail(simulator.DevoFault{ThrottleBytes: 1, ThrottleEvery: 5 * time.Millisecond, ReceiveBuffer: 64 << 10})
	c := e.dial(t)
	c.send(t, frames(0, 200))
	time.Sleep(20 * time.Millisecond)
	// What came together with the end of the handshake is not slowed down.
	if got := e.Stats().Frames; got > 50 {
		t.Errorf("%d frames at 200 bytes a second", got)
	}
	e.Clear()
	eventually(t, "frames read", func() bool { return e.Stats().Frames == 200 })
	// The connection waits in Read: a live fault must reach it there.
	e.Fail(simulator.DevoFault{Live: true, End: simulator.Reset})
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	e.dial(t).send(t, frame(2))
	eventually(t, "the next connection is not concerned", func() bool { return e.Stats().Frames == 201 })
}

func TestStallGoesOn(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	e.Fail(simulator.DevoFault{AfterBytes: 3000, Stall: 50 * time.Millisecond})
	c := e.dial(t)
	c.send(t, frames(0, 100))
	if secure, raw := c.finish(t); secure != nil || raw != nil {
		t.Errorf("the end was %v and %v", secure, raw)
	}
	if got := e.Stats().Frames; got != 100 {
		t.Errorf("%d frames, want 100", got)
	}
}

func TestAwayAndBack(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	addr := e.Addr()
	c := e.dial(t)
	c.send(t, frame(1))
	eventually(t, "frame read", func() bool { return e.Stats().Frames == 1 })
	e.Away()
	_, _ = io.Copy(io.Discard, c) // a FIN or a reset: it ends
	eventually(t, "connection closed", func() bool { return e.Stats().Open == 0 })
	if s := e.Stats(); s.Broken != 1 || s.HalfCloses != 0 {
		t.Errorf("stats %+v", s)
	}
	if _, err := e.tryDial(e.config()); err == nil {
		t.Error("someone listens")
	}
	if err := e.Back(); err != nil {
		t.Fatal(err)
	}
	if e.Addr() != addr {
		t.Errorf("back at %s, was at %s", e.Addr(), addr)
	}
	e.dial(t).send(t, frame(2))
	eventually(t, "frame read", func() bool { return e.Stats().Frames == 2 })
}

func TestConnectionsAtOnce(t *testing.T) {
	e := newEndpoint(t, simulator.DevoOptions{})
	const conns, each = 8, 200
	done := make(chan error, conns)
	for k := range conns {
		c := e.dial(t)
		go func() {
			_, err := io.WriteString(c, frames(k*each, (k+1)*each))
			done <- errors.Join(err, c.CloseWrite(), c.raw.CloseWrite())
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all read", func() bool { return e.Stats().HalfCloses == conns })
	if s := e.Stats(); s.Unique != conns*each || s.Duplicates != 0 || s.Connections != conns {
		t.Errorf("stats %+v", s)
	}
}
