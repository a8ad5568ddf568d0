package collector_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlptrace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	"defenderiot/pkg/telemetry"
	contract "defenderiot/proto"
	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

// otlpReceiver is an OTLP/HTTP endpoint that keeps the spans that it gets.
type otlpReceiver struct {
	*httptest.Server
	mu     sync.Mutex
	spans  []*otlptrace.Span
	bodies []byte
	wrong  []string
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	r := &otlpReceiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *otlpReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	message := &collectortrace.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, message)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind := request.Header.Get("Content-Type"); err != nil || request.URL.Path != "/v1/traces" || kind != "application/x-protobuf" {
		r.wrong = append(r.wrong, fmt.Sprintf("%s %s of %s: %v", request.Method, request.URL.Path, kind, err))
		http.Error(w, "OTLP traces only", http.StatusBadRequest)
		return
	}
	r.bodies = append(r.bodies, body...)
	for _, resource := range message.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, _ := proto.Marshal(&collectortrace.ExportTraceServiceResponse{})
	_, _ = w.Write(answer)
}

// named returns the spans of a name, in the order in which they came.
func (r *otlpReceiver) named(name string) (spans []*otlptrace.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.GetName() == name {
			spans = append(spans, s)
		}
	}
	return spans
}

// number is the value of a span's attribute, 0 without it.
func number(s *otlptrace.Span, key string) int64 {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetIntValue()
		}
	}
	return 0
}

func text(s *otlptrace.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

func failed(s *otlptrace.Span) bool {
	return s.GetStatus().GetCode() == otlptrace.Status_STATUS_CODE_ERROR
}

// confirmed counts the events of the spans of confirmations.
func (r *otlpReceiver) confirmed() (events int64) {
	for _, s := range r.named("confirm") {
		if !failed(s) {
			events += number(s, "events")
		}
	}
	return events
}

// carried is what the whole pipeline left behind when all alerts were confirmed.
type carried struct {
	status  *collector.Status
	headers []nats.Header // of every message in UNIQUE
}

// carry runs the whole pipeline until all n alerts are confirmed and done says true as well, then stops it.
func (s *site) carry(endpoint string, n int, done func() bool) carried {
	t := s.t
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "") // to be restored
			os.Unsetenv(name)
		}
	}
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	c, warnings, err := config.Load(config.Options{Path: s.dir + "/config.yaml", Workdir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	c.Telemetry.Listen, c.Telemetry.OTLPEndpoint = "127.0.0.1:0", endpoint
	devo := c.Outputs["devo_1"]
	devo.Config.RotateAfterEvents = 700 // several connections
	c.Outputs["devo_1"] = devo
	var log bytes.Buffer // read only when everything has ended
	p, err := process.OpenWith(t.Context(), "collector", c, warnings, &log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		err := (&collector.Pipeline{Process: p, BusDir: process.BusDir(c), Console: io.Discard}).Run(ctx)
		ended <- err
		cancel() // whoever waits for alerts need not wait for more
	}()
	out, waited := s.await(ctx, c, n, done)
	cancel()
	err = <-ended
	if closing := p.Telemetry.Close(context.Background()); closing != nil {
		t.Errorf("spans: %v", closing)
	}
	p.Close()
	if waited != nil || err != nil {
		t.Fatalf("wait: %v, pipeline: %v, log:\n%s", waited, err, log.String())
	}
	return out
}

// await returns when all is confirmed; else why it is not.
func (s *site) await(ctx context.Context, c *config.Config, n int, done func() bool) (carried, error) {
	var b *bus.Bus
	defer func() {
		if b != nil {
			_ = b.Close(context.WithoutCancel(ctx))
		}
	}()
	last := "the bus is not up"
	for ; ; time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			return carried{}, fmt.Errorf("%w; last: %s", ctx.Err(), last)
		}
		if b == nil {
			var err error
			if b, err = process.Connect(c, s.t.Name(), slog.New(slog.DiscardHandler)); err != nil {
				continue
			}
		}
		status, err := collector.ReadStatus(ctx, b, c)
		if err != nil {
			last = err.Error()
			continue
		}
		o := status.Outputs["devo_1"]
		last = fmt.Sprintf("%+v, %+v", status.Events, o)
		if o == nil || o.Confirmed < uint64(n) || !done() {
			continue
		}
		headers, err := headersOf(ctx, b, contract.StreamUnique)
		return carried{status, headers}, err
	}
}

func headersOf(ctx context.Context, b *bus.Bus, name string) (out []nats.Header, err error) {
	stream, err := b.JetStream().Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		m, err := stream.GetMsg(ctx, sequence)
		if err != nil {
			return nil, err
		}
		out = append(out, m.Header)
	}
	return out, nil
}

// pageTrace is the trace of one page.
type pageTrace struct{ page, request, publish *otlptrace.Span }

// pages sorts the spans of the fetcher by their traces: one page at the root, one request, and one publication if
// anything on it was new.
func (r *otlpReceiver) pages(t *testing.T) map[string]*pageTrace {
	t.Helper()
	traces := map[string]*pageTrace{}
	for _, s := range r.named("page") {
		id := string(s.GetTraceId())
		if len(s.GetParentSpanId()) != 0 || traces[id] != nil {
			t.Errorf("a second page in a trace, or a page below something: %v", s)
		}
		traces[id] = &pageTrace{page: s}
	}
	take := func(name string, place func(*pageTrace) **otlptrace.Span) {
		for _, s := range r.named(name) {
			p := traces[string(s.GetTraceId())]
			switch {
			case p == nil || !bytes.Equal(s.GetParentSpanId(), p.page.GetSpanId()):
				t.Errorf("%s is not below a page: %v", name, s)
			case *place(p) != nil:
				t.Errorf("two of %s below one page: %v", name, s)
			default:
				*place(p) = s
			}
		}
	}
	take("request", func(p *pageTrace) **otlptrace.Span { return &p.request })
	take("publish", func(p *pageTrace) **otlptrace.Span { return &p.publish })
	for _, p := range traces {
		if p.request == nil {
			t.Errorf("a page without its request: %v", p.page)
		}
	}
	return traces
}

// From the request to the confirmation: every page that brought something has a trace, and the spans of the batches
// that its rows went through lead back to it.
func TestTracesFromTheRequestToTheConfirmation(t *testing.T) {
	s := newSite(t, simulator.Options{})
	s.Graph.Add(s.Generator.Rows(2400)...)
	const n = 2403 // with those that a site has: three pages
	receiver := newOTLPReceiver(t)
	got := s.carry(receiver.URL, n, func() bool { return receiver.confirmed() >= n })

	pages := receiver.pages(t)
	published := map[string]bool{}
	rows, tokens := int64(0), map[bool]int{}
	for id, p := range pages {
		if p.publish != nil {
			published[id] = true
			rows += number(p.publish, "rows")
		}
		for _, a := range p.request.GetAttributes() {
			if a.GetKey() == "skip_token" {
				tokens[a.GetValue().GetBoolValue()]++
			}
		}
	}
	if len(published) < 3 || uint64(rows) != got.status.Events.Received || tokens[true] < 2 || tokens[false] < 1 || tokens[true]+tokens[false] != len(pages) {
		t.Errorf("%d pages published %d rows of %d in RAW; requests with a skip token and without: %v", len(published), rows, got.status.Events.Received, tokens)
	}

	linked := map[string]map[string]bool{}
	for _, name := range []string{"dedup", "send", "confirm"} {
		linked[name] = map[string]bool{}
		for _, span := range receiver.named(name) {
			if len(span.GetParentSpanId()) != 0 || pages[string(span.GetTraceId())] != nil {
				t.Errorf("%s is part of a page's trace: %v", name, span)
			}
			empty := name == "confirm" && number(span, "events") == 0
			if n := len(span.GetLinks()); (n == 0) != empty || n > 64 {
				t.Errorf("%s has %d links", name, n)
			}
			for _, link := range span.GetLinks() {
				id := string(link.GetTraceId())
				if !published[id] || !bytes.Equal(link.GetSpanId(), pages[id].page.GetSpanId()) {
					t.Errorf("%s is linked to %x, which is no page that published", name, id)
				}
				linked[name][id] = linked[name][id] || !failed(span)
			}
		}
	}
	// UNIQUE is the witness of what each page brought.
	first := map[string]bool{}
	for _, h := range got.headers {
		c := trace.SpanContextFromContext(telemetry.Propagator.Extract(t.Context(), telemetry.HeaderCarrier(h)))
		id := c.TraceID()
		if !published[string(id[:])] {
			t.Fatalf("an alert in UNIQUE carries %v, which is no page that published", h)
		}
		first[string(id[:])] = true
	}
	if len(got.headers) != n || (len(first) != len(published) && got.status.Events.Duplicates == 0) {
		t.Errorf("%d alerts in UNIQUE, from %d of %d pages", len(got.headers), len(first), len(published))
	}
	for id := range published {
		if !linked["dedup"][id] || (first[id] && (!linked["send"][id] || !linked["confirm"][id])) {
			t.Errorf("page %x is lost: dedup %v, send %v, confirm %v", id, linked["dedup"][id], linked["send"][id], linked["confirm"][id])
		}
	}

	// The ledger is the witness of the windows; one that held nothing may have ended after it was read.
	windows, filled := uint64(0), uint64(0)
	for _, span := range receiver.named("confirm") {
		if failed(span) {
			continue
		}
		windows++
		if number(span, "events") > 0 {
			filled++
		}
		if text(span, "output") != "devo_1" || text(span, "proof") != string(contract.ProofHalfClose) {
			t.Errorf("confirmation: %v", span.GetAttributes())
		}
	}
	if o := got.status.Outputs["devo_1"]; filled < 4 || filled > o.Rotations || windows < o.Rotations || receiver.confirmed() != n {
		t.Errorf("%d confirmations, %d of them of %d alerts; want %d of %d", windows, filled, receiver.confirmed(), o.Rotations, n)
	}
	receiver.documented(t)
	receiver.modest(t, n, simulator.ClientSecret, s.AzureURL())
}

// documented demands that docs/operating.md names every span and attribute.
func (r *otlpReceiver) documented(t *testing.T) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(page), "\n")
	for _, s := range r.spans {
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "| `"+s.GetName()+"` |") })
		if i < 0 {
			t.Fatalf("docs/operating.md does not have the span %s", s.GetName())
		}
		for _, a := range s.GetAttributes() {
			if !strings.Contains(lines[i], "`"+a.GetKey()+"`") {
				t.Fatalf("docs/operating.md does not have %s of the span %s", a.GetKey(), s.GetName())
			}
		}
	}
}

// modest demands that there is no span for each alert, and nothing in any that does not belong there.
func (r *otlpReceiver) modest(t *testing.T, alerts int, secrets ...string) {
	t.Helper()
	if len(r.wrong) > 0 || len(r.spans) > alerts/4 {
		t.Errorf("%d spans for %d alerts; wrong requests: %v", len(r.spans), alerts, r.wrong)
	}
	for _, secret := range secrets {
		if bytes.Contains(r.bodies, []byte(secret)) {
			t.Errorf("a span holds %s", secret)
		}
	}
}

// Without an endpoint no message carries a byte of a trace.
func TestNoTraceWithoutAnEndpoint(t *testing.T) {
	s := newSite(t, simulator.Options{})
	got := s.carry("", 3, func() bool { return true })
	if len(got.headers) != 3 {
		t.Errorf("%d alerts in UNIQUE, want 3", len(got.headers))
	}
	for _, h := range got.headers {
		if len(h[contract.HeaderTraceparent])+len(h[contract.HeaderTracestate]) > 0 {
			t.Errorf("headers %v", h)
		}
	}
}
