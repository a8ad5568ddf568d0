package ledger_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

type set map[uint64]bool

func (s set) list() []uint64 { return slices.Sorted(maps.Keys(s)) }

// process is a sender process of the model: a Ledger, and what lies on its connections.
type process struct {
	name   string
	ledger *ledger.Ledger
	open   set
}

// model knows what every sequence's fate allows the ledger to say.
type model struct {
	t         *testing.T
	b         *bus.Bus
	random    *rand.Rand
	shared    bool // a sequence may lie on the connections of several processes at once
	certain   bool // no call fails, so the counters are known exactly
	processes []*process
	dropped   []string // names of processes that crashed
	started   int

	begun   set // a Begin returned and let it through: may have been written
	maybe   set // a Begin failed: it may be on record, though nothing was written
	settled set // a Confirm or Dead returned
	unknown set // a Confirm or Dead failed: it may be on record
	next    uint64
	calls   uint64 // sequences in all calls of Confirm and Dead
	resent  uint64 // sequences that a Verdict called resent
}

// TestModel drives processes that take, confirm, crash and come back, with deliveries that come to any of
// them again, and compares all that the ledger says with what happened.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := &model{
				t: t, b: bustest.New(t, bustest.Topology(output)), random: rand.New(rand.NewPCG(seed, 1)), shared: seed%2 == 1, certain: seed%3 == 0,
				begun: set{}, maybe: set{}, settled: set{}, unknown: set{}, next: 1,
			}
			for range 3 {
				m.processes = append(m.processes, m.start())
			}
			for step := range 120 {
				m.step()
				if step%4 == 3 {
					m.check()
				}
				if t.Failed() {
					t.Fatalf("at step %d", step)
				}
			}
			m.finish()
		})
	}
}

func (m *model) start() *process {
	m.started++
	name := fmt.Sprint("process/", m.started)
	return &process{name: name, ledger: ledger.Open(m.b, output, name), open: set{}}
}

func (m *model) step() {
	p := m.processes[m.random.IntN(len(m.processes))]
	switch n := m.random.IntN(100); {
	case n < 40:
		m.deliver(p, m.batch())
	case n < 60:
		m.settle(p, p.ledger.Confirm)
	case n < 65:
		m.settle(p, p.ledger.Dead)
	case n < 75:
		m.crash(p)
	case n < 82 && !m.certain:
		m.crashWhileStoring(p)
	case n < 86 && !m.certain:
		m.failBegin(p)
	default:
		if len(m.dropped) > 0 {
			age(m.t, m.b, m.dropped[m.random.IntN(len(m.dropped))])
		}
		if err := p.ledger.Touch(bustest.Context(m.t), m.ackFloor()); err != nil {
			m.t.Error(err)
		}
	}
}

// batch is what the consumer may deliver: new sequences, and any that came before, settled or not.
func (m *model) batch() []uint64 {
	batch := set{}
	for range 1 + m.random.IntN(8) {
		if m.next > 1 && m.random.IntN(2) == 0 {
			batch[m.next-1-m.random.Uint64N(min(m.next-1, 20))] = true
			continue
		}
		if m.random.IntN(6) == 0 {
			m.next++ // delivered later, or never
		}
		batch[m.next] = true
		m.next++
	}
	return batch.list()
}

func (m *model) deliver(p *process, batch []uint64) {
	v := begin(m.t, p.ledger, batch...)
	m.resent += uint64(v.Resent.Len())
	said := v.Confirmed.Clone()
	said.AddSet(v.Resent)
	if said.Len() != v.Confirmed.Len()+v.Resent.Len() {
		m.t.Errorf("both confirmed and resent: %+v", v)
	}
	for _, s := range batch {
		confirmed, resent := v.Confirmed.Contains(s), v.Resent.Contains(s)
		said.RemoveRange(proto.Range{First: s, Last: s})
		switch {
		case m.settled[s] && !confirmed:
			m.t.Errorf("%d is settled and was not called so", s)
		case !m.settled[s] && !m.unknown[s] && confirmed:
			m.t.Errorf("%d was called confirmed and nobody confirmed it", s)
		case m.begun[s] && !confirmed && !resent:
			m.t.Errorf("%d may have been written and was not called resent", s)
		case !m.begun[s] && !m.maybe[s] && resent:
			m.t.Errorf("%d was called resent and nobody began it", s)
		}
		if confirmed {
			m.settled[s] = true // whoever said so, it stays so
			delete(m.unknown, s)
			continue
		}
		m.begun[s] = true
		if !m.shared {
			for _, other := range m.processes {
				delete(other.open, s) // it comes again only once its connection is broken
			}
		}
		p.open[s] = true
	}
	if said.Len() != 0 {
		m.t.Errorf("the verdict on %v speaks of %v", batch, said.Ranges())
	}
}

func (m *model) some(p *process) []uint64 {
	var out []uint64
	for _, s := range p.open.list() {
		if m.random.IntN(3) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func (m *model) settle(p *process, do func(context.Context, []uint64) error) {
	seqs := m.some(p)
	if err := do(bustest.Context(m.t), seqs); err != nil {
		m.t.Error(err)
	}
	m.calls += uint64(len(seqs))
	for _, s := range seqs {
		m.settled[s] = true
		delete(m.unknown, s)
		delete(p.open, s)
	}
}

// crash drops a process without a word; another one takes its place.
func (m *model) crash(p *process) {
	m.dropped = append(m.dropped, p.name)
	*p = *m.start()
}

func (m *model) crashWhileStoring(p *process) {
	seqs := m.some(p)
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel()
	if err := p.ledger.Confirm(ctx, seqs); err == nil {
		m.t.Error("Confirm with an ended context says that it stored")
	}
	m.calls += uint64(len(seqs))
	for _, s := range seqs {
		if !m.settled[s] {
			m.unknown[s] = true
		}
	}
	m.crash(p)
}

func (m *model) failBegin(p *process) {
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel()
	batch := m.batch()
	if _, err := p.ledger.Begin(ctx, batch); err == nil {
		m.t.Error("Begin with an ended context says that it stored")
	}
	for _, s := range batch {
		m.maybe[s] = true
	}
}

// ackFloor is a consumer's: everything up to it was acknowledged, which comes after it was settled.
func (m *model) ackFloor() uint64 {
	floor := uint64(0)
	for m.settled[floor+1] {
		floor++
	}
	return m.random.Uint64N(floor + 1)
}

func (m *model) check() {
	v := read(m.t, m.b)
	for s := uint64(1); s < m.next+5; s++ {
		confirmed, written := s <= v.Floor || v.Confirmed.Contains(s), v.Written.Contains(s)
		switch {
		case confirmed && !m.settled[s] && !m.unknown[s]:
			m.t.Errorf("floor %d, confirmed %v: %d is not settled", v.Floor, v.Confirmed.Ranges(), s)
		case !confirmed && m.settled[s]:
			m.t.Errorf("floor %d, confirmed %v: %d is settled", v.Floor, v.Confirmed.Ranges(), s)
		case m.begun[s] && !confirmed && !written:
			m.t.Errorf("%d may have been written and is not in %v", s, v.Written.Ranges())
		case written && (confirmed || !m.begun[s] && !m.maybe[s]):
			m.t.Errorf("%d is in %v", s, v.Written.Ranges())
		}
	}
	m.checkCounters(v.Counters)
}

func (m *model) checkCounters(c proto.Counters) {
	total := c.Confirmed + c.Dead
	if least := uint64(len(m.settled)); total < least || total > m.calls {
		m.t.Errorf("%d counted as settled; %d are, in calls for %d", total, least, m.calls)
	}
	if !m.shared && m.certain && total != uint64(len(m.settled)) {
		m.t.Errorf("%d counted as settled, %d are", total, len(m.settled))
	}
	if c.Resent < m.resent || m.certain && c.Resent != m.resent {
		m.t.Errorf("%d counted as resent, %d were", c.Resent, m.resent)
	}
}

// finish delivers everything that is not settled once more and confirms it: the ledger must come to rest.
func (m *model) finish() {
	last := m.start()
	m.processes = append(m.processes, last)
	for first := uint64(1); first < m.next; first += 50 {
		var batch []uint64
		for s := first; s < min(first+50, m.next); s++ {
			batch = append(batch, s)
		}
		m.deliver(last, batch)
	}
	seqs := last.open.list()
	if err := last.ledger.Confirm(bustest.Context(m.t), seqs); err != nil {
		m.t.Fatal(err)
	}
	m.calls += uint64(len(seqs))
	for _, s := range seqs {
		m.settled[s] = true
		delete(m.unknown, s)
	}
	for _, p := range m.processes[:3] {
		m.crash(p)
	}
	for _, name := range m.dropped {
		age(m.t, m.b, name)
	}
	if err := last.ledger.Touch(bustest.Context(m.t), m.next-1); err != nil {
		m.t.Fatal(err)
	}
	m.check()
	v := read(m.t, m.b)
	if v.Floor != m.next-1 || v.Unconfirmed() != 0 || v.Confirmed.Len() != 0 || v.Senders != 1 {
		m.t.Errorf("not at rest: %+v", v)
	}
	for _, name := range m.dropped {
		if stored(m.t, m.b, name) != nil {
			m.t.Errorf("the record of %s was not taken over", name)
		}
	}
}
