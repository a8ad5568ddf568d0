package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Propagator carries a span's identity across the bus in the W3C form (https://www.w3.org/TR/trace-context/).
// Over NATS headers use it with [HeaderCarrier].
var Propagator propagation.TraceContext

// HeaderCarrier is a nats.Header for [Propagator]: HeaderCarrier(msg.Header). propagation.HeaderCarrier
// would not do: it canonicalises keys as HTTP does ("Traceparent"), while a nats.Header is looked up by
// the exact letters, so the other side would find nothing.
type HeaderCarrier map[string][]string

// Get returns the first value of key, or "".
func (c HeaderCarrier) Get(key string) string {
	if values := c[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of key. The map must not be nil.
func (c HeaderCarrier) Set(key, value string) { c[key] = []string{value} }

// Keys returns all keys, sorted.
func (c HeaderCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// failureBytes bounds a span's failure text: the SDK bounds attributes only.
const failureBytes = 512

// Fail marks span as failed with err's text, cut to 512 bytes and made valid UTF-8, without which none of
// the spans that travel with it could be encoded. Nil and the end of a context that was cancelled, which is how a
// program stops, leave the span as it is.
func Fail(span trace.Span, err error) {
	if err == nil || !span.IsRecording() || errors.Is(err, context.Canceled) {
		return
	}
	text := err.Error()
	span.SetStatus(codes.Error, strings.ToValidUTF8(text[:min(len(text), failureBytes)], ""))
}

// endpointVariables are the standard ones, in the order in which they win.
var endpointVariables = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

// traceEndpoint returns the full URL that spans are posted to, or "" for no traces. The setting wins over
// the environment. Its value is a base URL, as is OTEL_EXPORTER_OTLP_ENDPOINT's;
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is taken as it stands
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp).
func traceEndpoint(setting string, getenv func(string) string) (string, error) {
	if strings.EqualFold(strings.TrimSpace(getenv("OTEL_SDK_DISABLED")), "true") ||
		strings.TrimSpace(getenv("OTEL_TRACES_EXPORTER")) == "none" {
		return "", nil
	}
	name, value := "telemetry.otlp_endpoint", setting
	for _, variable := range endpointVariables {
		if value != "" {
			break
		}
		name, value = variable, strings.TrimSpace(getenv(variable))
	}
	if value == "" {
		return "", nil
	}
	u, err := url.Parse(value)
	// The value is not repeated: somebody may have put a password into it.
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil {
		return "", fmt.Errorf("telemetry: %s is no usable URL: want http://host:port or https://host:port, for example http://127.0.0.1:4318; credentials go into OTEL_EXPORTER_OTLP_HEADERS", name)
	}
	if name != endpointVariables[0] && !strings.HasSuffix(u.Path, "/v1/traces") {
		u = u.JoinPath("v1", "traces")
	}
	return u.String(), nil
}

// tracing owns the trace provider; without an endpoint it has only the no-op tracer.
type tracing struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	exporter *exporter
}

func newTracing(ctx context.Context, endpoint string, res *resource.Resource, logger *slog.Logger) (*tracing, error) {
	if endpoint == "" {
		return &tracing{tracer: noop.NewTracerProvider().Tracer(scope)}, nil
	}
	inner, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return nil, fmt.Errorf("telemetry: set up traces to %s: %w; see telemetry.otlp_endpoint and the variables OTEL_EXPORTER_OTLP_*", endpoint, err)
	}
	e := newExporter(inner, NewIncident(logger, "Sending traces to "+endpoint, IncidentLevel(slog.LevelWarn)))
	// The batcher's queue is bounded (2,048 spans, or OTEL_BSP_MAX_QUEUE_SIZE) and drops when full: traces
	// never hold the pipeline up. Sampler and limits come from the OTEL_* variables.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(e), sdktrace.WithResource(res))
	return &tracing{tracer: provider.Tracer(scope), provider: provider, exporter: e}, nil
}

// close flushes until ctx is done. It waits for the provider's goroutine to end, which is soon after that
// at the latest, because aborting makes each export that is left return at once.
func (t *tracing) close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, t.exporter.abort)
	defer stop()
	err := t.provider.Shutdown(context.WithoutCancel(ctx))
	t.exporter.abort()
	if lost := t.exporter.lost.Load(); lost > 0 {
		return fmt.Errorf("%d spans were not sent in time", lost)
	}
	return err
}

// exporter tells the operator of spans that cannot be sent as one incident; the SDK would print every failure.
// It can be aborted, because the SDK's own shutdown does not end an export that is under way.
type exporter struct {
	sdktrace.SpanExporter
	incident *Incident
	aborted  context.Context
	abort    context.CancelFunc
	lost     atomic.Int64
}

func newExporter(inner sdktrace.SpanExporter, incident *Incident) *exporter {
	e := &exporter{SpanExporter: inner, incident: incident}
	e.aborted, e.abort = context.WithCancel(context.Background())
	return e
}

// ExportSpans returns nil always: the failure is reported here.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(e.aborted, cancel)
	defer stop()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err == nil:
		e.incident.Resolve()
	case e.aborted.Err() != nil:
		e.lost.Add(int64(len(spans)))
	default:
		e.incident.Report(err)
	}
	return nil
}
