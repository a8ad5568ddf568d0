package bus

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// TraceHeader returns ctx's trace context as a message header, or nil when there is none, so that an
// untraced message carries no byte of it. The caller may put the same header on many messages.
func TraceHeader(ctx context.Context) nats.Header {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	h := nats.Header{}
	telemetry.Propagator.Inject(ctx, telemetry.HeaderCarrier(h))
	return h
}

// TraceLinks returns a link for each distinct trace that the headers carry, at most 64: a span that
// handles a batch links to where its messages come from.
func TraceLinks(headers []nats.Header) []trace.Link {
	var links []trace.Link
	seen := map[string]bool{}
	for _, h := range headers {
		v := telemetry.HeaderCarrier(h).Get(proto.HeaderTraceparent)
		if v == "" || seen[v] || len(links) == 64 {
			continue
		}
		seen[v] = true
		ctx := telemetry.Propagator.Extract(context.Background(), telemetry.HeaderCarrier(h))
		links = append(links, trace.LinkFromContext(ctx))
	}
	return links
}
