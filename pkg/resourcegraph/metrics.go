package resourcegraph

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the client's instruments. The outcome label has the nine values of outcome and no more.
type metrics struct {
	remaining metric.Int64Gauge
	throttled metric.Int64Counter
	requests  metric.Int64Counter
	duration  metric.Float64Histogram
}

func newMetrics(m metric.Meter) (*metrics, error) {
	if m == nil {
		m = noop.Meter{}
	}
	var x metrics
	var errs [4]error
	x.remaining, errs[0] = m.Int64Gauge("resourcegraph.quota.remaining",
		metric.WithDescription("Requests left to the principal in the current window, by the last answer."))
	x.throttled, errs[1] = m.Int64Counter("resourcegraph.throttled",
		metric.WithDescription("Answers with status 429."))
	x.requests, errs[2] = m.Int64Counter("resourcegraph.requests",
		metric.WithDescription("Requests sent to Resource Graph, by outcome."))
	x.duration, errs[3] = m.Float64Histogram("resourcegraph.request.duration", metric.WithUnit("s"),
		metric.WithDescription("From sending a request to the last byte of its answer."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	// Shown from 0 on: an alarm sees the first one, too.
	x.throttled.Add(context.Background(), 0)
	for _, o := range outcomes {
		x.requests.Add(context.Background(), 0, metric.WithAttributes(attribute.String("outcome", o)))
	}
	return &x, nil
}

// outcomes are the values of the label of that name.
var outcomes = []string{"ok", "throttled", "unauthorized", "forbidden", "rejected", "server_error", "no_answer", "canceled", "unexpected"}

func (x *metrics) record(ctx context.Context, resp *http.Response, err error, took time.Duration) {
	set := metric.WithAttributes(attribute.String("outcome", outcome(ctx, resp, err)))
	x.requests.Add(ctx, 1, set)
	x.duration.Record(ctx, took.Seconds(), set)
	if resp != nil && resp.StatusCode == http.StatusTooManyRequests {
		x.throttled.Add(ctx, 1)
	}
}

func outcome(ctx context.Context, resp *http.Response, err error) string {
	switch {
	case ctx.Err() != nil:
		return "canceled"
	case err != nil || resp == nil:
		return "no_answer"
	case resp.StatusCode == http.StatusOK:
		return "ok"
	case resp.StatusCode == http.StatusTooManyRequests:
		return "throttled"
	case resp.StatusCode == http.StatusUnauthorized:
		return "unauthorized"
	case resp.StatusCode == http.StatusForbidden:
		return "forbidden"
	case resp.StatusCode >= 500:
		return "server_error"
	case resp.StatusCode >= 400:
		return "rejected"
	}
	return "unexpected"
}
