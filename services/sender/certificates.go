package sender

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/certificate"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

// certificates watches the certificate files of one output: it tells when what they hold ends soon, and
// when they cannot be taken up and what was read before stays in use.
type certificates struct {
	endpoint devo.Endpoint
	stale    *telemetry.Incident
	watched  certificate.Watch
}

func newCertificates(s OutputSettings, logger *slog.Logger, m *metrics) *certificates {
	c := &certificates{
		endpoint: s.Endpoint,
		stale:    telemetry.NewIncident(logger, "taking up the certificate files of output "+s.Name, telemetry.IncidentLevel(slog.LevelWarn)),
	}
	c.watched = certificate.Watch{
		Logger: logger, Attrs: []any{"output", s.Name}, Read: c.files,
		Record: func(ctx context.Context, v certificate.Validity) {
			m.expiry.Record(ctx, float64(v.End.Unix()), metric.WithAttributes(attribute.String("output", s.Name), attribute.String("file", v.Kind)))
		},
	}
	return c
}

// read tells the outcome of the last reading of the files. It is safe for concurrent use.
func (c *certificates) read() {
	if err := c.endpoint.Keyring.Stale(); err != nil {
		c.stale.Report(fmt.Errorf("%w; what was read before stays in use, but a restart would fail", err))
		return
	}
	c.stale.Resolve()
}

// watch looks at the files until ctx ends, also while there is no connection that reads them.
func (c *certificates) watch(ctx context.Context) { c.watched.Run(ctx) }

// look reads the files once, as a connect at now would.
func (c *certificates) look(ctx context.Context, now time.Time) { c.watched.Look(ctx, now) }

// files reads them. Where that fails no connection comes about either, and that is told.
func (c *certificates) files(now time.Time) ([]certificate.Validity, error) {
	files, err := c.endpoint.Validities(now)
	if err == nil {
		c.read()
	}
	return files, err
}
