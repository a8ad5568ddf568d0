package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

var testSource = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

// alert is a row of the simulated Azure.
type alert struct {
	id      string
	sub     string
	start   time.Time // zero: no usable start
	version int
	err     error
	size    int // bytes counted against a page's limit
}

// world is Azure and the bus as one thing in memory, with one lock, so that what a test asserts is a
// state that really was. Processes reach it through a gate that can be cut off at any call.
type world struct {
	mu   sync.Mutex
	skew time.Duration // Azure's clock less this one

	alerts    map[string]*alert
	readable  []string
	pageLimit int             // sizes beyond it are ErrPayloadTooLarge; 0: none
	hidden    map[string]bool // counted but never returned: what a short answer looks like
	truncated bool
	queries   []resourcegraph.Query
	// onPage runs before a page is answered, under the lock; its error is the answer.
	onPage func(q resourcegraph.Query, offset int) error

	raw     []*proto.Envelope
	rawIDs  map[string]bool
	index   map[string]bool // of raw up to indexed
	indexed int
	dead    []proto.DeadLetter
	claims  map[string][]byte
	purged  []string
	publish func(msgs []bus.Message) error // runs before a batch is stored
	full    bool

	keys     map[string]*entry
	revision uint64
	onRecord func(c *proto.Checkpoint) // runs when a record was stored
}

func newWorld() *world {
	return &world{alerts: map[string]*alert{}, hidden: map[string]bool{}, rawIDs: map[string]bool{}, index: map[string]bool{}, claims: map[string][]byte{}, keys: map[string]*entry{}, readable: []string{"sub-1"}}
}

func (w *world) with(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *world) azureNow() time.Time { return time.Now().Add(w.skew).UTC() }

// put adds or replaces an alert.
func (w *world) put(id string, start time.Time) *alert {
	a := &alert{id: id, sub: "sub-1", start: start}
	w.alerts[id] = a
	return a
}

func (w *world) putMany(n int, from time.Time, step time.Duration) {
	w.with(func() {
		for i := range n {
			w.put(fmt.Sprintf("/bulk/%05d", i), from.Add(time.Duration(i)*step))
		}
	})
}

func (w *world) rawHas(id string) bool {
	for ; w.indexed < len(w.raw); w.indexed++ {
		w.index[w.raw[w.indexed].AlertID] = true
	}
	return w.index[strings.ToLower(id)]
}

// forget empties RAW.
func (w *world) forget() {
	w.raw, w.rawIDs, w.index, w.indexed = nil, map[string]bool{}, map[string]bool{}, 0
}

func (w *world) rawCount(id string) int {
	n := 0
	for _, e := range w.raw {
		if e.AlertID == strings.ToLower(id) {
			n++
		}
	}
	return n
}

// dedup claims everything in RAW, as the dedup service does.
func (w *world) dedup() {
	for i, e := range w.raw {
		subject := claimsOf(e.Source, e.Generation).subject(e.Hash)
		if _, ok := w.claims[subject]; !ok {
			w.claims[subject] = proto.Claim{RawSequence: uint64(i + 1)}.Encode()
		}
	}
}

func (w *world) checkpoint() *proto.Checkpoint {
	e := w.keys[proto.RecordKey(testSource)]
	if e == nil || e.gone {
		return nil
	}
	c, err := proto.DecodeCheckpoint(e.value)
	if err != nil {
		return nil
	}
	return c
}

var bound = regexp.MustCompile(`(>=|<) datetime\(([^)]+)\)`)

// window reads the bounds out of a query's text.
func window(text string) (from, to time.Time) {
	for _, m := range bound.FindAllStringSubmatch(text, -1) {
		t, err := time.Parse(time.RFC3339Nano, m[2])
		if err != nil {
			panic(err)
		}
		if m[1] == ">=" {
			from = t
		} else {
			to = t
		}
	}
	return from, to
}

// match returns what q's text selects, in its order.
func (w *world) match(q resourcegraph.Query) []*alert {
	nulls := strings.Contains(q.Text, "isnull(")
	from, to := window(q.Text)
	var out []*alert
	for _, a := range w.alerts {
		visible := slices.Contains(w.readable, a.sub) && (len(q.Subscriptions) == 0 || slices.Contains(q.Subscriptions, a.sub))
		switch {
		case !visible || nulls != a.start.IsZero():
		case nulls || (!a.start.Before(from) && (to.IsZero() || a.start.Before(to))):
			out = append(out, a)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if !out[i].start.Equal(out[j].start) {
			return out[i].start.Before(out[j].start)
		}
		return out[i].id < out[j].id
	})
	return out
}

func (w *world) page(q resourcegraph.Query) (*resourcegraph.Page, error) {
	w.queries = append(w.queries, q)
	offset := 0
	if q.SkipToken != "" {
		offset, _ = strconv.Atoi(q.SkipToken)
	}
	if w.onPage != nil {
		if err := w.onPage(q, offset); err != nil {
			return nil, err
		}
	}
	rows := w.match(q)
	p := &resourcegraph.Page{Total: int64(len(rows)), Date: w.azureNow().Truncate(time.Second), Received: time.Now().UTC(), Truncated: w.truncated}
	end := min(len(rows), offset+q.Top)
	size := 0
	for _, a := range rows[min(offset, len(rows)):end] {
		size += a.size
		if w.hidden[a.id] {
			continue
		}
		raw := fmt.Sprintf(`{"id":%q,"properties":{"version":%d}}`, a.id, a.version)
		p.Rows = append(p.Rows, resourcegraph.Row{Raw: []byte(raw), ID: a.id, Subscription: a.sub, Start: a.start, Err: a.err})
	}
	if w.pageLimit > 0 && size > w.pageLimit {
		return nil, fmt.Errorf("simulated: %w", resourcegraph.ErrPayloadTooLarge)
	}
	p.Count = int64(len(p.Rows))
	if end < len(rows) {
		p.SkipToken = strconv.Itoa(end)
	}
	return p, nil
}

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
	err = p.call(ctx, func() error { page, err = p.page(q); return err })
	if err != nil {
		return nil, err
	}
	return page, nil
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

func (p *process) DeadLetter(ctx context.Context, d proto.DeadLetter) error {
	return p.call(ctx, func() error { p.world.dead = append(p.world.dead, d); return nil })
}

func (p *process) Purge(ctx context.Context, _, filter string) error {
	return p.call(ctx, func() error { p.purged = append(p.purged, filter); return nil })
}

func (p *process) KeyValue(context.Context, string) (jetstream.KeyValue, error) {
	return bucket{process: p}, nil
}

// entry is a stored key.
type entry struct {
	jetstream.KeyValueEntry
	value    []byte
	revision uint64
	gone     bool
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

// logs keeps the lines of a fetcher.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Level.String() + " " + r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, b.String())
	return nil
}
func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logs) WithGroup(string) slog.Handler      { return l }

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// running is a fetcher at work.
type running struct {
	*Fetcher
	*process
	logs   *logs
	cancel context.CancelFunc
	done   chan error
}

// start runs a fetcher against the world until the test ends or stop is called.
func (w *world) start(t testing.TB, change func(*Options)) *running {
	t.Helper()
	p := w.process()
	l := &logs{}
	o := Options{
		Source: testSource, Graph: p, Bus: p, Logger: slog.New(l), Instance: fmt.Sprintf("test-%p", p),
		Service: Service{Period: time.Minute, Overlap: 10 * time.Minute, Lookback: 48 * time.Hour, Tag: "edr.microsoft_defender.iot_security.alert", Host: "h"},
	}
	if change != nil {
		change(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Fetcher: f, process: p, logs: l, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- f.Run(ctx); close(r.done) }()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// halt stops the fetcher in order.
func (r *running) halt(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
