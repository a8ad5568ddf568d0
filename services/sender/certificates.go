package sender

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

const (
	// certificatePeriod is how often the files are looked at besides each connect, for an idle output has
	// no connection.
	certificatePeriod = time.Minute
	// noticePeriod is how often a certificate that ends soon is told.
	noticePeriod = 24 * time.Hour
)

// certificates watches the certificate files of one output: it tells when what they hold ends soon, and
// when they cannot be taken up and what was read before stays in use.
type certificates struct {
	output   string
	endpoint devo.Endpoint
	logger   *slog.Logger
	metrics  *metrics
	stale    *telemetry.Incident
	told     map[string]notice // by the file's kind; only watch uses it
}

// notice is what was told about a file.
type notice struct {
	end time.Time
	at  time.Time
}

func newCertificates(s OutputSettings, logger *slog.Logger, m *metrics) *certificates {
	return &certificates{
		output: s.Name, endpoint: s.Endpoint, logger: logger, metrics: m, told: map[string]notice{},
		stale: telemetry.NewIncident(logger, "taking up the certificate files of output "+s.Name, telemetry.IncidentLevel(slog.LevelWarn)),
	}
}

// read tells the outcome of the last reading of the files. It is safe for concurrent use.
func (c *certificates) read() {
	if err := c.endpoint.Keyring.Stale(); err != nil {
		c.stale.Report(fmt.Errorf("%w; what was read before stays in use, but a restart would fail", err))
		return
	}
	c.stale.Resolve()
}

// watch looks at the files until ctx ends.
func (c *certificates) watch(ctx context.Context) {
	for {
		c.look(ctx, time.Now())
		if !pause(ctx, certificatePeriod) {
			return
		}
	}
}

// look reads the files once, as a connect at now would.
func (c *certificates) look(ctx context.Context, now time.Time) {
	files, err := c.endpoint.Validities(now)
	if err != nil {
		return // no connection comes about either, and that is told
	}
	c.read()
	for _, v := range files {
		c.metrics.expiry.Record(ctx, float64(v.End.Unix()), metric.WithAttributes(attribute.String("output", c.output), attribute.String("file", v.Kind)))
		text := v.Notice(now)
		last := c.told[v.Kind]
		if text == "" || last.end.Equal(v.End) && now.Sub(last.at) < noticePeriod {
			continue
		}
		c.told[v.Kind] = notice{end: v.End, at: now}
		c.logger.Warn(text, "output", c.output, "hint", v.Remedy())
	}
}
