package devo

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// tooMuch is more than all buffers between two sockets hold.
var tooMuch = make([]byte, 32<<20)

// stalled is a peer that reads nothing until the test ends.
func stalled(t *testing.T, tr transport) *peer {
	stop := make(chan struct{})
	p := newPeer(t, tr, nil, func(*link) { <-stop })
	t.Cleanup(func() { close(stop) }) // runs before the peer's own
	return p
}

func TestWriteDeadline(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		c := dialPeer(t, stalled(t, tr).endpoint)
		_, err := c.Write(testContext(t), []byte("first"))
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		end, err := c.Write(ctx, tooMuch)
		wantReason(t, err, TimedOut)
		if end <= 0 || end >= int64(len(tooMuch)) {
			t.Errorf("end = %d", end)
		}
		waitGone(t, c)
		if proof, err := c.HalfClose(testContext(t)); proof != Broken || err == nil {
			t.Errorf("HalfClose = %v, %v", proof, err)
		}
	})
}

func TestWriteCancelled(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		c := dialPeer(t, stalled(t, tr).endpoint)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := c.Write(ctx, tooMuch); !errors.Is(err, context.Canceled) {
			t.Errorf("Write = %v", err)
		}
	})
}

func TestWriteWithEndedContextHarmsNothing(t *testing.T) {
	got := make(chan int64, 1)
	c := dialPeer(t, newPeer(t, transports[0], nil, reader(got)).endpoint)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Write(ctx, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v", err)
	}
	if proof, err := c.HalfClose(testContext(t)); proof != Confirmed {
		t.Errorf("HalfClose = %v, %v", proof, err)
	}
	if n := <-got; n != 0 {
		t.Errorf("the peer read %d", n)
	}
}

func TestConcurrentClose(t *testing.T) {
	overAll(t, func(t *testing.T, tr transport) {
		p := stalled(t, tr)
		for range 20 {
			c, err := Dial(testContext(t), p.endpoint)
			must(t, err)
			done := make(chan struct{}, 6)
			run := func(f func()) { go func() { f(); done <- struct{}{} }() }
			run(func() { _, _ = c.Write(context.Background(), tooMuch) })
			run(func() { _, _ = c.HalfClose(context.Background()) })
			run(func() { c.Acked(); c.Unacked(); c.Undisturbed() })
			for range 3 {
				run(func() { c.Close() })
			}
			for range 6 {
				<-done
			}
			if !errors.Is(c.Err(), net.ErrClosed) {
				t.Fatalf("Err = %v", c.Err())
			}
		}
	})
}

// BenchmarkWrite writes batches of 64 KB to a peer that reads.
func BenchmarkWrite(b *testing.B) {
	for _, tr := range transports {
		b.Run(tr.name, func(b *testing.B) {
			c := dialPeer(b, newPeer(b, tr, nil, reader(make(chan int64, 1))).endpoint)
			batch := make([]byte, 64<<10)
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
