package fetcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// process is one program's way to the world. It may be killed: then every call fails, with the call that
// kills it done or not done.
type process struct {
	*world
	gate sync.Mutex
	left int // calls until it dies; negative: never
	dead bool
	// done says whether the last call still reaches the world.
	done bool
	// onDeath is called once, without a lock held.
	onDeath func()
}

var errDead = errors.New("the process is dead")

func (w *world) process() *process { return &process{world: w, left: -1} }

// dieAfter kills the process at its n-th call from now.
func (p *process) dieAfter(n int, done bool, onDeath func()) {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.left, p.done, p.onDeath = n, done, onDeath
}

// enter reports whether the call reaches the world and whether its outcome is still seen.
func (p *process) enter() (reaches, seen bool) {
	p.gate.Lock()
	defer p.gate.Unlock()
	if p.dead {
		return false, false
	}
	if p.left < 0 {
		return true, true
	}
	if p.left--; p.left >= 0 {
		return true, true
	}
	p.dead = true
	if p.onDeath != nil {
		go p.onDeath()
	}
	return p.done, false
}

// call does do in the world if the process lives.
func (p *process) call(ctx context.Context, do func() error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	time.Sleep(time.Millisecond) // every call takes time, so that tasks interleave
	reaches, seen := p.enter()
	var err error
	if reaches {
		p.mu.Lock()
		err = do()
		p.mu.Unlock()
	}
	if !seen {
		return errDead
	}
	return err
}

func (p *process) Token(ctx context.Context) error { return p.call(ctx, func() error { return nil }) }

func (p *process) Page(ctx context.Context, q resourcegraph.Query) (page *resourcegraph.Page, err error) {
	time.Sleep(p.pageTime)
	err = p.call(ctx, func() error { page, err = p.page(q); return err })
	if err != nil {
		return nil, err
	}
	return page, nil
}

func (p *process) Renewed() (renewed bool) {
	p.with(func() { renewed, p.renewed = p.renewed, false })
	return renewed
}

func (p *process) Subscriptions(ctx context.Context, subs, _ []string) (out []string, err error) {
	err = p.call(ctx, func() error {
		for _, s := range p.readable {
			if len(subs) == 0 || slices.Contains(subs, s) {
				out = append(out, s)
			}
		}
		return nil
	})
	return out, err
}

func (p *process) PublishBatch(ctx context.Context, stream string, msgs []bus.Message) error {
	if stream != proto.StreamRaw || len(msgs) == 0 || len(msgs) > batchMessages {
		return fmt.Errorf("a batch of %d to %s", len(msgs), stream)
	}
	return p.call(ctx, func() error {
		if p.full {
			return fmt.Errorf("simulated: %w", bus.ErrFull)
		}
		if p.publish != nil {
			if err := p.publish(msgs); err != nil {
				return err
			}
		}
		for _, m := range msgs {
			if p.rawIDs[m.MsgID] {
				continue
			}
			e, err := proto.DecodeEnvelope(m.Data)
			if err != nil {
				return err
			}
			p.rawIDs[m.MsgID] = true
			p.raw = append(p.raw, e)
		}
		return nil
	})
}

func (p *process) Lookup(ctx context.Context, _ string, subjects []string) (map[string]bus.Stored, error) {
	out := map[string]bus.Stored{}
	err := p.call(ctx, func() error {
		for _, s := range subjects {
			if v, ok := p.claims[s]; ok {
				out[s] = bus.Stored{Sequence: 1, Data: v}
			}
		}
		return nil
	})
	return out, err
}

func (p *process) LookupAll(ctx context.Context, _, filter string) (found map[string]bus.Stored, damaged []string, err error) {
	found = map[string]bus.Stored{}
	err = p.call(ctx, func() error {
		if p.uncounted != nil {
			return p.uncounted
		}
		for key, e := range p.keys {
			subject := proto.BucketSubject(proto.BucketCheckpoints, key)
			switch {
			case !strings.HasPrefix(subject, strings.TrimSuffix(filter, ">")):
			case e.damaged:
				damaged = append(damaged, subject)
			case !e.gone:
				found[subject] = bus.Stored{Sequence: e.revision, Data: e.value}
			}
		}
		return nil
	})
	return found, damaged, err
}

func (p *process) DeadLetter(ctx context.Context, d proto.DeadLetter) error {
	return p.call(ctx, func() error { p.world.dead = append(p.world.dead, d); return nil })
}

func (p *process) Purge(ctx context.Context, _, filter string) error {
	return p.call(ctx, func() error { p.purged = append(p.purged, filter); return nil })
}

// consumer is dedup's, as far as its position.
type consumer struct {
	jetstream.Consumer
	info jetstream.ConsumerInfo
}

func (c consumer) CachedInfo() *jetstream.ConsumerInfo { return &c.info }

func (p *process) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	if stream != proto.StreamRaw || name != proto.ConsumerDedup {
		return nil, fmt.Errorf("consumer %s of %s", name, stream)
	}
	var c consumer
	err := p.call(ctx, func() error {
		at := jetstream.SequenceInfo{Stream: uint64(p.deduped)}
		c.info = jetstream.ConsumerInfo{Delivered: at, AckFloor: at, NumPending: uint64(len(p.raw) - p.deduped)}
		return nil
	})
	return c, err
}

func (p *process) KeyValue(context.Context, string) (jetstream.KeyValue, error) {
	return bucket{process: p}, nil
}

// entry is a stored key.
type entry struct {
	jetstream.KeyValueEntry
	value    []byte
	revision uint64
	gone     bool // deleted, or damaged
	damaged  bool // the bus cannot read it
}

func (e *entry) Value() []byte    { return e.value }
func (e *entry) Revision() uint64 { return e.revision }

// bucket is the checkpoints bucket; only the methods that the fetcher uses exist.
type bucket struct {
	jetstream.KeyValue
	process *process
}

func (b bucket) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	var out jetstream.KeyValueEntry
	err := b.process.call(ctx, func() error {
		e := b.process.keys[key]
		if e == nil || e.gone {
			return jetstream.ErrKeyNotFound
		}
		out = e
		return nil
	})
	return out, err
}

func (b bucket) Create(ctx context.Context, key string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return b.set(ctx, key, value, func(e *entry) bool { return e == nil || e.gone })
}

func (b bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return b.set(ctx, key, value, func(e *entry) bool { return e != nil && e.revision == revision })
}

func (b bucket) set(ctx context.Context, key string, value []byte, allowed func(*entry) bool) (revision uint64, err error) {
	w := b.process.world
	err = b.process.call(ctx, func() error {
		if !allowed(w.keys[key]) {
			return jetstream.ErrKeyExists
		}
		w.revision++
		revision = w.revision
		w.keys[key] = &entry{value: slices.Clone(value), revision: revision}
		if key == proto.RecordKey(testSource) && w.onRecord != nil {
			w.onRecord(w.checkpoint())
		}
		return nil
	})
	return revision, err
}

func (b bucket) Delete(ctx context.Context, key string, _ ...jetstream.KVDeleteOpt) error {
	return b.process.call(ctx, func() error {
		b.process.revision++
		b.process.keys[key] = &entry{revision: b.process.revision, gone: true}
		return nil
	})
}
