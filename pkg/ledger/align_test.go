package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// lossy is a UNIQUE that loses its end now and then, and what the alerts in it have been through.
type lossy struct {
	t         *testing.T
	b         *bus.Bus
	random    *rand.Rand
	senders   []*ledger.Ledger
	at        map[uint64]int // which alert a sequence holds
	open      map[uint64]bool
	confirmed map[int]bool
	alerts    int
	known     uint64 // the highest sequence that any ledger speaks of
}

// TestLostEnd: whatever end UNIQUE loses, and however deliveries, confirmations and new alerts take turns, no alert is
// called confirmed that was not.
func TestLostEnd(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := &lossy{
				t: t, b: bustest.New(t, bustest.Topology(output)), random: rand.New(rand.NewPCG(seed, 7)),
				at: map[uint64]int{}, open: map[uint64]bool{}, confirmed: map[int]bool{},
			}
			for i := range 2 {
				l.senders = append(l.senders, ledger.Open(l.b, output, fmt.Sprint("sender ", i)))
			}
			for range 60 {
				switch n := l.random.IntN(10); {
				case n < 4:
					l.publish(1 + l.random.IntN(20))
				case n < 7:
					l.deliver()
				case n < 9:
					l.confirm()
				default:
					l.lose()
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

func (l *lossy) last() uint64 {
	v, err := l.b.Volume(bustest.Context(l.t), proto.StreamUnique)
	if err != nil {
		l.t.Fatal(err)
	}
	return v.LastSequence
}

// publish does what dedup does.
func (l *lossy) publish(n int) {
	ctx := bustest.Context(l.t)
	if _, err := ledger.Align(ctx, l.b); err != nil {
		l.t.Fatal(err)
	}
	first := l.last() + 1
	if first <= l.known {
		l.t.Errorf("the next alert gets sequence %d, and a ledger speaks of %d", first, l.known)
	}
	var msgs []bus.Message
	for i := range n {
		l.alerts++
		l.at[first+uint64(i)] = l.alerts
		msgs = append(msgs, bus.Message{Subject: fmt.Sprint("alerts.unique.a.b.c.1.", l.alerts), Data: []byte("x"), ExpectEmpty: true})
	}
	if err := l.b.PublishBatch(ctx, proto.StreamUnique, msgs); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lossy) deliver() {
	var batch []uint64
	for s := range l.at {
		if len(batch) < 10 && l.random.IntN(2) == 0 {
			batch = append(batch, s)
			l.known = max(l.known, s)
		}
	}
	v := begin(l.t, l.senders[l.random.IntN(len(l.senders))], batch...)
	for _, s := range batch {
		if v.Confirmed.Contains(s) && !l.confirmed[l.at[s]] {
			l.t.Errorf("alert %d at sequence %d is called confirmed, and was never", l.at[s], s)
		}
		l.open[s] = !v.Confirmed.Contains(s)
	}
}

func (l *lossy) confirm() {
	var seqs []uint64
	for s, open := range l.open {
		if open && l.random.IntN(3) > 0 {
			seqs = append(seqs, s)
			l.confirmed[l.at[s]] = true
			delete(l.open, s)
		}
	}
	if err := l.senders[l.random.IntN(len(l.senders))].Confirm(bustest.Context(l.t), seqs); err != nil {
		l.t.Fatal(err)
	}
}

// lose takes the end of the stream away, as a server does that cannot read it. What is left is purged half of the time.
func (l *lossy) lose() {
	ctx := bustest.Context(l.t)
	last := l.last()
	end := last - l.random.Uint64N(min(last, 30)+1)
	stream, err := l.b.JetStream().Stream(ctx, proto.StreamUnique)
	if err != nil {
		l.t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.FirstSeq = max(end, 1)
	if err := l.b.JetStream().DeleteStream(ctx, proto.StreamUnique); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.b.JetStream().CreateStream(ctx, config); err != nil {
		l.t.Fatal(err)
	}
	if l.random.IntN(2) == 0 { // else it is empty, and goes on from there
		if err := l.b.PublishBatch(ctx, proto.StreamUnique, []bus.Message{{Subject: "alerts.unique.a.b.c.1.old", Data: []byte("x"), ExpectEmpty: true}}); err != nil {
			l.t.Fatal(err)
		}
	}
	for s := range l.at {
		if s >= config.FirstSeq {
			delete(l.at, s)
			delete(l.open, s)
		}
	}
}
