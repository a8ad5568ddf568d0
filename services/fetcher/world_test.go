package fetcher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	size    int    // bytes counted against a page's limit
	raw     string // the row, if not a plain one
	scope   string // the row's subscription, if not sub
}

// world is Azure and the bus as one thing in memory, with one lock, so that what a test asserts is a
// state that really was. Processes reach it through a gate that can be cut off at any call.
type world struct {
	mu   sync.Mutex
	skew time.Duration // Azure's clock less this one

	alerts    map[string]*alert
	readable  []string
	renewed   bool            // the credential, until somebody asks
	pageLimit int             // sizes beyond it are ErrPayloadTooLarge; 0: none
	hidden    map[string]bool // counted but never returned: what a short answer looks like
	truncated bool
	pageRows  int           // an answer never holds more, whatever is asked for; 0: no such limit
	pageTime  time.Duration // what an answer takes
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
	deduped int                            // messages of raw that dedup is done with
	publish func(msgs []bus.Message) error // runs before a batch is stored
	full    bool

	keys     map[string]*entry
	revision uint64
	// uncounted is the answer to who looks at all leases.
	uncounted error
	onRecord  func(c *proto.Checkpoint) // runs when a record was stored
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

// settle lets d pass in the bubble's time. The lock orders what the test does before and after it, when
// nothing else runs, with what the fetcher does in between.
func (w *world) settle(d time.Duration) {
	w.with(func() {})
	time.Sleep(d)
	synctest.Wait()
	w.with(func() {})
}

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
	w.raw, w.rawIDs, w.index, w.indexed, w.deduped = nil, map[string]bool{}, map[string]bool{}, 0, 0
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
	w.deduped = len(w.raw)
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
	top := q.Top
	if w.pageRows > 0 {
		top = min(top, w.pageRows)
	}
	end := min(len(rows), offset+top)
	size := 0
	for _, a := range rows[min(offset, len(rows)):end] {
		size += a.size
		if w.hidden[a.id] {
			continue
		}
		raw := fmt.Sprintf(`{"id":%q,"properties":{"version":%d}}`, a.id, a.version)
		p.Rows = append(p.Rows, resourcegraph.Row{Raw: []byte(cmp.Or(a.raw, raw)), ID: a.id, Subscription: cmp.Or(a.scope, a.sub), Start: a.start, Err: a.err})
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

// logs keeps the lines of a fetcher.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Level.String() + " " + r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "" { // no fields, as in the text format
			fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, b.String())
	return nil
}
func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logs) WithGroup(string) slog.Handler      { return l }

func (l *logs) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

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
	w.with(func() {})
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
	r.with(func() {})
	r.cancel()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
