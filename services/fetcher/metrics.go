package fetcher

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// metrics are a source's instruments; their labels are input and service, nothing that grows.
type metrics struct {
	labels metric.MeasurementOption

	rows, fresh, duplicates, pages  metric.Int64Counter
	dead, short, lost               metric.Int64Counter
	failures, setupFailures         metric.Int64Counter
	duration                        metric.Float64Histogram
	position, lag, answered, expiry metric.Float64Gauge
	since                           metric.Float64Gauge
	unreadable, nullStarts, leader  metric.Int64Gauge
}

func newMetrics(meter metric.Meter, source proto.Source) (*metrics, error) {
	if meter == nil {
		meter = metricnoop.NewMeterProvider().Meter("")
	}
	m := &metrics{labels: metric.WithAttributeSet(attribute.NewSet(
		attribute.String("input", source.Input), attribute.String("service", source.Service)))}
	var errs []error
	counter := func(name, what string) metric.Int64Counter {
		c, err := meter.Int64Counter("collector_fetcher_"+name, metric.WithDescription(what))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, what string) metric.Int64Gauge {
		g, err := meter.Int64Gauge("collector_fetcher_"+name, metric.WithDescription(what))
		errs = append(errs, err)
		return g
	}
	seconds := func(name, what string) metric.Float64Gauge {
		g, err := meter.Float64Gauge("collector_fetcher_"+name, metric.WithDescription(what), metric.WithUnit("s"))
		errs = append(errs, err)
		return g
	}
	m.rows = counter("rows_total", "Rows received from Resource Graph.")
	m.fresh = counter("new_total", "Rows that RAW acknowledged.")
	m.duplicates = counter("duplicates_total", "Rows left out because they are known.")
	m.pages = counter("pages_total", "Requests for pages.")
	m.dead = counter("dead_letters_total", "Rows that became dead letters.")
	m.short = counter("short_windows_total", "Answers that held fewer rows than they counted.")
	m.lost = counter("unresolved_windows_total", "Windows still short after being halved to one second; they are read again.")
	m.failures = counter("pull_failures_total", "Pulls that failed.")
	m.setupFailures = counter("setup_failures_total", "Set-ups that failed.")
	m.position = seconds("position_timestamp_seconds", "The record's position, seconds since the epoch.")
	m.lag = seconds("lag_seconds", "Azure's time less the newest start seen, after each pull.")
	m.answered = seconds("last_page_timestamp_seconds", "When Resource Graph last answered with a page, seconds since the epoch.")
	m.expiry = seconds("certificate_expiry_timestamp_seconds", "When the client certificate ends that the source signs in with, seconds since the epoch.")
	m.unreadable = gauge("unreadable_subscriptions", "Configured subscriptions that cannot be read.")
	m.nullStarts = gauge("rows_without_start", "Rows without a usable start time.")
	m.leader = gauge("leader", "1 while this process holds the source's lease.")
	m.since = seconds("active_since_timestamp_seconds", "Since when this process holds the source's lease, seconds since the epoch; 0 while it does not.")
	var err error
	m.duration, err = meter.Float64Histogram("collector_fetcher_pull_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("Duration of a pull."), metric.WithExplicitBucketBoundaries(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	// Shown from 0 on: an alarm sees the first one, too.
	for _, c := range []metric.Int64Counter{m.dead, m.short, m.lost} {
		c.Add(context.Background(), 0, m.labels)
	}
	for _, code := range append(failureCodes[:len(failureCodes):len(failureCodes)], 0) {
		m.failed(m.failures, code, 0)
		m.failed(m.setupFailures, code, 0)
	}
	return m, nil
}

// failureCodes are the codes of docs/errors.md that a set-up or a pull fails with; the label code has them and "other".
var failureCodes = []int{101, 102, 301, 302, 401, 403, 429, 498}

// fail counts a failure by its code.
func (m *metrics) fail(counter metric.Int64Counter, err error) {
	code := 0
	var known *fault.Error
	if errors.As(err, &known) {
		code = known.Code
	}
	m.failed(counter, code, 1)
}

func (m *metrics) failed(counter metric.Int64Counter, code int, n int64) {
	label := "other"
	if slices.Contains(failureCodes, code) {
		label = strconv.Itoa(code)
	}
	counter.Add(context.Background(), n, m.labels, metric.WithAttributes(attribute.String("code", label)))
}

// page notes that Azure has just answered.
func (m *metrics) page() {
	m.answered.Record(context.Background(), epoch(time.Now()), m.labels)
}

func (m *metrics) at(position time.Time) {
	m.position.Record(context.Background(), epoch(position), m.labels)
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// reached records the lag; without a row there is nothing to lag behind.
func (m *metrics) reached(now, newest time.Time) {
	if !newest.IsZero() {
		m.lag.Record(context.Background(), max(0, now.Sub(newest).Seconds()), m.labels)
	}
}

func (m *metrics) lead(is bool) {
	v, since := int64(0), 0.0
	if is {
		v, since = 1, epoch(time.Now())
	}
	m.leader.Record(context.Background(), v, m.labels)
	m.since.Record(context.Background(), since, m.labels)
}

func tracerOr(t trace.Tracer) trace.Tracer {
	if t == nil {
		return tracenoop.NewTracerProvider().Tracer("")
	}
	return t
}
