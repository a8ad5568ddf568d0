package fetcher

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"defenderiot/proto"
)

// metrics are a source's instruments; their labels are input and service, nothing that grows.
type metrics struct {
	labels metric.MeasurementOption

	rows, fresh, duplicates, pages metric.Int64Counter
	dead, short, lost              metric.Int64Counter
	failures, setupFailures        metric.Int64Counter
	duration                       metric.Float64Histogram
	position, lag                  metric.Float64Gauge
	unreadable, nullStarts, leader metric.Int64Gauge
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
	m.unreadable = gauge("unreadable_subscriptions", "Configured subscriptions that cannot be read.")
	m.nullStarts = gauge("rows_without_start", "Rows without a usable start time.")
	m.leader = gauge("leader", "1 while this process holds the source's lease.")
	var err error
	m.duration, err = meter.Float64Histogram("collector_fetcher_pull_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("Duration of a pull."), metric.WithExplicitBucketBoundaries(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800))
	return m, errors.Join(append(errs, err)...)
}

func (m *metrics) at(position time.Time) {
	m.position.Record(context.Background(), float64(position.UnixMilli())/1000, m.labels)
}

// reached records the lag; without a row there is nothing to lag behind.
func (m *metrics) reached(now, newest time.Time) {
	if !newest.IsZero() {
		m.lag.Record(context.Background(), max(0, now.Sub(newest).Seconds()), m.labels)
	}
}

func (m *metrics) lead(is bool) {
	v := int64(0)
	if is {
		v = 1
	}
	m.leader.Record(context.Background(), v, m.labels)
}

func tracerOr(t trace.Tracer) trace.Tracer {
	if t == nil {
		return tracenoop.NewTracerProvider().Tracer("")
	}
	return t
}
