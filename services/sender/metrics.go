package sender

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/telemetry"
)

type metrics struct {
	confirmed, replayed, resent, dead, rotations, answers, unclean, newer, internal metric.Int64Counter
	pending, unconfirmed, reachable, unproved                                       metric.Int64Gauge
	latency                                                                         metric.Float64Histogram
	expiry                                                                          metric.Float64Gauge
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var errs []error
	counter := func(name, what, unit string) metric.Int64Counter {
		c, err := m.Int64Counter("collector_sender_"+name, metric.WithDescription(what), metric.WithUnit(unit))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, what, unit string) metric.Int64Gauge {
		g, err := m.Int64Gauge("collector_sender_"+name, metric.WithDescription(what), metric.WithUnit(unit))
		errs = append(errs, err)
		return g
	}
	latency, err := m.Float64Histogram("collector_sender_alert_to_confirmation",
		metric.WithDescription("Time from an alert's start to its confirmation at the output."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(telemetry.LatencyBuckets...))
	errs = append(errs, err)
	expiry, err := m.Float64Gauge("collector_sender_certificate_expiry_timestamp_seconds", metric.WithUnit("s"),
		metric.WithDescription("When the first certificate in a certificate file of the output ends, seconds since the epoch."))
	errs = append(errs, err)
	out := &metrics{
		confirmed:   counter("confirmed", "Alerts confirmed at the output.", "{alert}"),
		replayed:    counter("replayed", "Alerts confirmed at the output that a job has sent again.", "{alert}"),
		resent:      counter("resent", "Alerts sent again although they may have arrived.", "{alert}"),
		dead:        counter("dead", "Alerts that ended in the output's dead letters.", "{alert}"),
		rotations:   counter("rotations", "Connections that ended with a confirmation.", "{connection}"),
		answers:     counter("answered_half_closes", "Half-closes that the endpoint answered, by what it answered with: confirmed is close_notify and FIN over TLS, confirmed_without_notify the FIN alone.", "{connection}"),
		unclean:     counter("unclean", "Connections that ended without a confirmation.", "{connection}"),
		newer:       counter("newer_version", "Deliveries that only a newer program can read; they wait in UNIQUE.", "{alert}"),
		internal:    counter("internal_sent", "Of the collector's own log lines and metric messages, those that the output's TCP has acknowledged.", "{line}"),
		pending:     gauge("pending", "Alerts in UNIQUE that the output has not confirmed.", "{alert}"),
		unconfirmed: gauge("unconfirmed", "Alerts in this process's hands that are not confirmed.", "{alert}"),
		reachable:   gauge("reachable", "1 while the output's endpoint could be reached when it was last tried, else 0.", ""),
		unproved:    gauge("unproved", "1 while the endpoint answers no half-close, so that delivery cannot be proved, else 0.", ""),
		latency:     latency,
		expiry:      expiry,
	}
	return out, errors.Join(errs...)
}

// begin shows an output's counters from 0 on: one that appears with its first event has no rise for an alarm to see.
func (m *metrics) begin(label metric.MeasurementOption) {
	for _, c := range []metric.Int64Counter{m.confirmed, m.replayed, m.resent, m.dead, m.rotations, m.unclean, m.newer} {
		c.Add(context.Background(), 0, label)
	}
}

func flag(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
