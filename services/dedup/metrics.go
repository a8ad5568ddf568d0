package dedup

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

type metrics struct {
	received, unique, duplicates, dead, newer metric.Int64Counter
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var errs []error
	counter := func(name, what string) metric.Int64Counter {
		c, err := m.Int64Counter("collector_dedup_"+name, metric.WithDescription(what), metric.WithUnit("{alert}"))
		if errs = append(errs, err); err == nil {
			c.Add(context.Background(), 0) // shown from 0 on: an alarm sees the first one, too
		}
		return c
	}
	out := &metrics{
		received:   counter("received", "Rows taken from RAW, redeliveries included."),
		unique:     counter("unique", "First sightings, now in UNIQUE or claimed without being sent."),
		duplicates: counter("duplicates", "Rows that were sighted before."),
		dead:       counter("dead", "Messages that became dead letters."),
		newer:      counter("newer_version", "Deliveries that only a newer program can read; they wait in RAW."),
	}
	return out, errors.Join(errs...)
}

// links connects the batch's span with the spans of the pages that its rows came in.
func links(batch []jetstream.Msg) []trace.Link {
	if !tracing(batch) {
		return nil
	}
	headers := make([]nats.Header, len(batch))
	for i, m := range batch {
		headers[i] = m.Headers()
	}
	return bus.TraceLinks(headers)
}

// tracing looks at the first message only: within one deployment all pages are traced or none.
func tracing(batch []jetstream.Msg) bool {
	return len(batch) > 0 && len(batch[0].Headers()[proto.HeaderTraceparent]) > 0
}

// traceOf returns the trace context that a message of RAW carries, to travel on with it.
func traceOf(m jetstream.Msg) nats.Header {
	h := m.Headers()
	parent := h[proto.HeaderTraceparent]
	if len(parent) == 0 {
		return nil
	}
	out := nats.Header{proto.HeaderTraceparent: parent}
	if state := h[proto.HeaderTracestate]; len(state) > 0 {
		out[proto.HeaderTracestate] = state
	}
	return out
}

// header is what travels on to UNIQUE beside the envelope.
func (s *sighting) header() nats.Header {
	h := traceOf(s.msg)
	if s.doubtful {
		if h == nil {
			h = nats.Header{}
		}
		h[proto.HeaderAgain] = []string{"1"}
	}
	return h
}
