package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// taken is the sequences of a batch.
func taken(t *testing.T, batch []jetstream.Msg) (sequences []uint64) {
	t.Helper()
	for _, m := range batch {
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		sequences = append(sequences, meta.Sequence.Stream)
	}
	return sequences
}

// next takes one batch and demands that it is the sequences from first to last.
func next(t *testing.T, p *bus.Pull, n int, first, last uint64) []jetstream.Msg {
	t.Helper()
	batch, err := p.Next(bustest.Context(t), n, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got := taken(t, batch)
	if uint64(len(got)) != last-first+1 || got[0] != first || got[len(got)-1] != last {
		t.Fatalf("got %d, want %d to %d", got, first, last)
	}
	return batch
}

func pullOf(t *testing.T, b *bus.Bus) *bus.Pull {
	t.Helper()
	p, err := b.Pull(bustest.Context(t), proto.StreamUnique, proto.OutputConsumer("one"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outstanding waits until the server has n deliveries without an acknowledgement.
func outstanding(t *testing.T, b *bus.Bus, n int) {
	t.Helper()
	ctx := bustest.Context(t)
	for {
		c, err := b.JetStream().Consumer(ctx, proto.StreamUnique, proto.OutputConsumer("one"))
		if err != nil {
			t.Fatal(err)
		}
		if c.CachedInfo().NumAckPending == n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A full batch has the next one fetched; what was fetched and not taken goes back at once.
func TestPullAhead(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bustest.Topology("one"))
	if err := b.PublishBatch(bustest.Context(t), proto.StreamUnique, messages(25, "x")); err != nil {
		t.Fatal(err)
	}
	first := pullOf(t, b)
	next(t, first, 10, 1, 10)
	outstanding(t, b, 20)
	next(t, first, 10, 11, 20)
	outstanding(t, b, 25)
	first.Close()
	first.Close()
	second := pullOf(t, b)
	defer second.Close()
	next(t, second, 10, 21, 25)
	outstanding(t, b, 25)
}

// The last full batch asks for no more: nothing may be held that a caller does not know of.
func TestPullEndsWithTheStream(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bustest.Topology("one"))
	ctx := bustest.Context(t)
	if err := b.PublishBatch(ctx, proto.StreamUnique, messages(10, "x")); err != nil {
		t.Fatal(err)
	}
	first, second := pullOf(t, b), pullOf(t, b)
	defer second.Close()
	next(t, first, 10, 1, 10)
	if err := b.PublishBatch(ctx, proto.StreamUnique, messages(3, "y")); err != nil {
		t.Fatal(err)
	}
	next(t, second, 10, 11, 13)
}

// What waited too long for its Next may be in other hands: it is neither taken nor given back, and comes again
// when the acknowledgement wait is over.
func TestPullForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bustest.Topology("one"))
	if err := b.PublishBatch(bustest.Context(t), proto.StreamUnique, messages(25, "x")); err != nil {
		t.Fatal(err)
	}
	p := pullOf(t, b)
	defer p.Close()
	hold := next(t, p, 10, 1, 10)
	outstanding(t, b, 20)
	for p.Ahead() < 10 { // what the server has not brought yet, it keeps when it finds nobody there
		time.Sleep(time.Millisecond)
	}
	p.Age()
	hold = append(hold, next(t, p, 10, 21, 25)...)
	for _, m := range hold {
		if err := m.DoubleAck(bustest.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	outstanding(t, b, 10)
	var again []uint64
	for ended := time.Now().Add(2 * bus.AckWait); len(again) < 10 && time.Now().Before(ended); {
		batch, err := p.Next(bustest.Context(t), 10, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, taken(t, batch)...)
	}
	if len(again) != 10 || again[0] != 11 || again[9] != 20 {
		t.Errorf("again: %d, want 11 to 20", again)
	}
}
