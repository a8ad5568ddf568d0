package bus

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/proto"
)

// carrier maps trace context onto message headers. The usual HeaderCarrier must not be used here: it
// canonicalises the key to "Traceparent", and header look-ups on the bus are case-sensitive.
type carrier nats.Header

func (c carrier) Get(key string) string {
	if v := c[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { c[key] = []string{value} }

func (c carrier) Keys() []string { return []string{proto.HeaderTraceparent, proto.HeaderTracestate} }

// TraceHeader returns ctx's trace context as a message header, or nil when there is none, so that an
// untraced message carries no byte of it. The caller may put the same header on many messages.
func TraceHeader(ctx context.Context) nats.Header {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	h := nats.Header{}
	propagation.TraceContext{}.Inject(ctx, carrier(h))
	return h
}

// TraceLinks returns a link for each distinct trace that the headers carry, at most 64: a span that
// handles a batch links to where its messages come from.
func TraceLinks(headers []nats.Header) []trace.Link {
	var links []trace.Link
	seen := map[string]bool{}
	for _, h := range headers {
		v := carrier(h).Get(proto.HeaderTraceparent)
		if v == "" || seen[v] || len(links) == 64 {
			continue
		}
		seen[v] = true
		ctx := propagation.TraceContext{}.Extract(context.Background(), carrier(h))
		links = append(links, trace.LinkFromContext(ctx))
	}
	return links
}
