package process

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/certificate"
)

// watchBusCertificates tells when the certificates of the way to the bus end, until ctx ends.
func (p *Process) watchBusCertificates(ctx context.Context, b *bus.Bus) {
	expiry, err := p.Telemetry.Meter.Float64Gauge("collector_bus_certificate_expiry_timestamp_seconds", metric.WithUnit("s"),
		metric.WithDescription("When the first certificate ends of the bus.tls file, or of what the nats-server has shown, seconds since the epoch."))
	if err != nil {
		p.Logger.Warn("the bus's certificates are not watched", "error", err)
		return
	}
	w := certificate.Watch{
		Read: b.Validities, Logger: p.Logger, Attrs: []any{"of", "bus"},
		Record: func(ctx context.Context, v certificate.Validity) {
			expiry.Record(ctx, float64(v.End.Unix()), metric.WithAttributes(attribute.String("file", v.Kind)))
		},
	}
	w.Run(ctx)
}
