package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP/HTTP endpoint that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	requests []*collectortrace.ExportTraceServiceRequest
	paths    []string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	message := new(collectortrace.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(body, message)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.requests = append(r.requests, message)
		r.paths = append(r.paths, request.URL.Path)
	}
	w.WriteHeader(r.status)
}

// spans returns `service/span` for each one that arrived.
func (r *receiver) spans() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, request := range r.requests {
		for _, resource := range request.GetResourceSpans() {
			service := ""
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					service = a.GetValue().GetStringValue()
				}
			}
			for _, s := range resource.GetScopeSpans() {
				for _, span := range s.GetSpans() {
					names = append(names, service+"/"+span.GetName())
				}
			}
		}
	}
	return names
}

func TestSpansArrive(t *testing.T) {
	for name, endpoint := range map[string]func(t *testing.T, url string) string{
		"setting":               func(_ *testing.T, url string) string { return url },
		"setting with the path": func(_ *testing.T, url string) string { return url + "/v1/traces" },
		"standard variable": func(t *testing.T, url string) string {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
			return ""
		},
		"variable for traces": func(t *testing.T, url string) string {
			t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url+"/v1/traces")
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			quiet(t)
			r := newReceiver(t)
			tel := startHere(t, Settings{Service: "dedup", OTLPEndpoint: endpoint(t, r.URL)})
			ctx, span := tel.Tracer.Start(t.Context(), "page")
			carrier := HeaderCarrier{}
			Propagator.Inject(ctx, carrier)
			span.End()
			if err := tel.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := r.spans(); len(got) != 1 || got[0] != "dedup/page" || r.paths[0] != "/v1/traces" {
				t.Errorf("got %q on %q", got, r.paths)
			}
			if carrier.Get("traceparent") == "" || len(carrier.Keys()) != 1 {
				t.Errorf("carrier: %v", carrier)
			}
			remote := trace.SpanContextFromContext(Propagator.Extract(t.Context(), carrier))
			if remote.TraceID() != span.SpanContext().TraceID() || !remote.IsRemote() {
				t.Errorf("extracted %v", remote)
			}
		})
	}
}

// A failure's text is bounded and can be encoded whatever it holds; a stop is no failure.
func TestFail(t *testing.T) {
	quiet(t)
	for name, tt := range map[string]struct {
		err  error
		code tracepb.Status_StatusCode
		text string
	}{
		"none":    {nil, tracepb.Status_STATUS_CODE_UNSET, ""},
		"a stop":  {fmt.Errorf("read: %w", context.Canceled), tracepb.Status_STATUS_CODE_UNSET, ""},
		"short":   {errors.New("away"), tracepb.Status_STATUS_CODE_ERROR, "away"},
		"long":    {errors.New(strings.Repeat("x", failureBytes-1) + "äö"), tracepb.Status_STATUS_CODE_ERROR, strings.Repeat("x", failureBytes-1)},
		"no text": {errors.New("a\xffb"), tracepb.Status_STATUS_CODE_ERROR, "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			tel := startHere(t, Settings{OTLPEndpoint: r.URL})
			_, span := tel.Tracer.Start(t.Context(), "page")
			Fail(span, tt.err)
			span.End()
			if err := tel.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(r.spans()) != 1 {
				t.Fatalf("got %q", r.spans())
			}
			if got := r.requests[0].GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()[0].GetStatus(); got.GetCode() != tt.code || got.GetMessage() != tt.text {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSamplerFromTheEnvironment(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	r := newReceiver(t)
	tel := startHere(t, Settings{OTLPEndpoint: r.URL})
	_, span := tel.Tracer.Start(t.Context(), "page")
	span.End()
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.spans(); len(got) != 0 || span.SpanContext().IsSampled() {
		t.Errorf("got %q", got)
	}
}

func TestNoTracesUnasked(t *testing.T) {
	for name, setenv := range map[string]func(t *testing.T, url string) (setting string){
		"no endpoint": func(*testing.T, string) string { return "" },
		"disabled": func(t *testing.T, url string) string {
			t.Setenv("OTEL_SDK_DISABLED", "true")
			return url
		},
		"exporter none": func(t *testing.T, url string) string {
			t.Setenv("OTEL_TRACES_EXPORTER", "none")
			return url
		},
	} {
		t.Run(name, func(t *testing.T) {
			quiet(t)
			r := newReceiver(t)
			tel := startHere(t, Settings{OTLPEndpoint: setenv(t, r.URL)})
			ctx, span := tel.Tracer.Start(t.Context(), "page")
			if span.IsRecording() || span.SpanContext().IsValid() {
				t.Error("a real span")
			}
			carrier := HeaderCarrier{}
			Propagator.Inject(ctx, carrier)
			if len(carrier) != 0 {
				t.Errorf("headers: %v", carrier)
			}
			span.End()
			if err := tel.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := r.spans(); len(got) != 0 {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestTraceEndpointIsChecked(t *testing.T) {
	for _, value := range []string{"collector:4318", "ftp://collector", "http://", "http://user:hunter2@collector:4318", "http://[::1", "%zz"} {
		for _, variable := range []string{"", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
			setting, named := value, "telemetry.otlp_endpoint"
			if variable != "" {
				setting, named = "", variable
			}
			_, err := traceEndpoint(setting, func(name string) string {
				if name == variable {
					return value
				}
				return ""
			})
			if err == nil || !strings.Contains(err.Error(), named) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q in %s: %v", value, named, err)
			}
		}
	}
}

// hanging accepts a request and never answers it.
func hanging(t *testing.T) (url string, asked <-chan struct{}) {
	requests, release := make(chan struct{}, 64), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		requests <- struct{}{}
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	return server.URL, requests
}

func TestCloseIsBoundedWhenTheReceiverHangs(t *testing.T) {
	quiet(t)
	url, asked := hanging(t)
	tel := startHere(t, Settings{OTLPEndpoint: url})
	_, span := tel.Tracer.Start(t.Context(), "page")
	span.End()
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- tel.Close(ctx) }()
	<-asked // the flush is under way, and nothing will answer
	cancel()
	select {
	case err := <-closed:
		if err == nil || !strings.Contains(err.Error(), "1 spans were not sent") {
			t.Errorf("got %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Close hangs with the receiver")
	}
	if err := tel.Close(t.Context()); err == nil {
		t.Error("the second Close tells another story")
	}
}

func TestCloseHasItsOwnLimit(t *testing.T) {
	quiet(t)
	url, _ := hanging(t)
	tel := startHere(t, Settings{OTLPEndpoint: url})
	_, span := tel.Tracer.Start(t.Context(), "page")
	span.End()
	closed := make(chan error, 1)
	go func() { closed <- tel.Close(context.Background()) }()
	select {
	case err := <-closed:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Close without a deadline hangs with the receiver")
	}
}

func TestFailingReceiverIsAnIncident(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	r := newReceiver(t)
	set := func(status int) { r.mu.Lock(); r.status = status; r.mu.Unlock() }
	set(http.StatusForbidden)
	var out lines
	tel := startHere(t, Settings{OTLPEndpoint: r.URL, LogOutput: &out, Level: slog.LevelInfo})
	send := func() {
		before := len(r.spans())
		_, span := tel.Tracer.Start(t.Context(), "page")
		span.End()
		eventually(t, "the span arrives", func() bool { return len(r.spans()) > before })
	}
	for range 3 {
		send()
	}
	set(http.StatusOK)
	eventually(t, "the incident is over", func() bool {
		send()
		return strings.Contains(strings.Join(out.all(), ""), "works again")
	})
	got := out.all()
	if len(got) != 2 || !strings.Contains(got[0], "WARNING MainProcess::MainThread -> Sending traces to "+r.URL+"/v1/traces failed: ") {
		t.Errorf("got %q", got)
	}
}

// Header values are often tokens; what OpenTelemetry says about a malformed one must not repeat it.
func TestDiagnosticsHideHeaders(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "hunter2,authorization=%zzhunter2,bad key=hunter2")
	var out lines
	startHere(t, Settings{OTLPEndpoint: "http://127.0.0.1:9", LogOutput: &out, Level: slog.LevelDebug})
	got := strings.Join(out.all(), "")
	if strings.Contains(got, "hunter2") || !strings.Contains(got, "OpenTelemetry: parse headers") {
		t.Errorf("got %s", got)
	}
}

func BenchmarkSpanWithoutEndpoint(b *testing.B) {
	for _, name := range endpointVariables {
		b.Setenv(name, "")
	}
	tel, err := New(b.Context(), Settings{LogOutput: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tel.Close(context.Background()) }()
	b.ReportAllocs()
	for b.Loop() {
		_, span := tel.Tracer.Start(b.Context(), "page")
		span.End()
	}
}
