package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/trial"
)

// StopGrace is how long an orderly stop may spend on confirming what was written.
const StopGrace = 5 * time.Second

// OutputSettings describe one output.
type OutputSettings struct {
	// Name is the output's name in the configuration.
	Name string
	// Endpoint is where to send. It is unused when Console is set.
	Endpoint devo.Endpoint
	// Console writes the frames to this writer instead: the outputs console and stdout. A write that
	// returned counts as confirmed.
	Console io.Writer
	// Connections is how many are open at a time in this process, 1 to 64.
	Connections int
	// RotateEvents and RotateAfter end a window: 1 to 2,500 events, and the time since its first one.
	RotateEvents int
	RotateAfter  time.Duration
	// Internal also delivers the collector's own log lines, on a connection of their own. It is for outputs
	// with an endpoint.
	Internal bool
	// StatisticsPeriod is between the statistics lines; 0: there are none.
	StatisticsPeriod time.Duration
	// StatisticsBytes gives these lines their later form, with bytes.
	StatisticsBytes bool
	// Compression says when frames go out as gzip members; nil: never.
	Compression *Compression

	proof proofTimes // zero: the default
}

// Options of a Sender; all fields are required, but Collector only for outputs with Internal, and Interrupted.
type Options struct {
	Bus      *bus.Bus
	Outputs  []OutputSettings
	Instance string // unique per start of a process
	Logger   *slog.Logger
	Meter    metric.Meter
	Tracer   trace.Tracer
	// Collector is who the metric messages speak of.
	Collector internalevent.Collector
	// Interrupted: the server has died, and may have forgotten what it had delivered last; see [trial.Care].
	Interrupted bool
}

// Sender is the service.
type Sender struct {
	outputs    []*output
	background []func(context.Context) // internal senders and monitors
	trial      *trial.Trial
}

// New makes a Sender. Errors are settings out of their bounds.
func New(o Options) (*Sender, error) {
	m, err := newMetrics(o.Meter)
	if err != nil {
		return nil, err
	}
	s := &Sender{trial: trial.New(TrialWork, o.Logger)}
	for _, settings := range o.Outputs {
		if settings.Connections < 1 || settings.Connections > 64 {
			return nil, fmt.Errorf("output %s: concurrent_connections %d is not between 1 and 64", settings.Name, settings.Connections)
		}
		if settings.RotateEvents < 1 || settings.RotateEvents > maxWindow || settings.RotateAfter <= 0 {
			return nil, fmt.Errorf("output %s: rotation after %d events or %v is out of bounds", settings.Name, settings.RotateEvents, settings.RotateAfter)
		}
		if settings.proof == (proofTimes{}) {
			settings.proof = defaultProofTimes
		}
		out := newOutput(o, settings, m)
		out.trial = s.trial
		if out.compression, err = newCompression(settings.Compression); err != nil {
			return nil, fmt.Errorf("output %s: %w", settings.Name, err)
		}
		s.outputs = append(s.outputs, out)
		s.background = append(s.background, out.statistics(o).run)
		if settings.Internal && settings.Console == nil {
			own := newInternal(o, settings, m.internal)
			s.background = append(s.background, own.run, own.monitor(o).run)
		}
	}
	return s, nil
}

// Run delivers until ctx ends. Then it takes nothing more, confirms what was written within [StopGrace],
// gives the rest back, and returns nil. Remote trouble never ends it.
func (s *Sender) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, o := range s.outputs {
		group.Go(func() { o.run(ctx) })
	}
	for _, run := range s.background {
		group.Go(func() { run(ctx) })
	}
	group.Wait()
	s.trial.Close()
	return nil
}

// Ready is nil when no output is without its endpoint; for /readyz.
func (s *Sender) Ready() error {
	var errs []error
	for _, o := range s.outputs {
		if err := o.reachable(); err != nil {
			errs = append(errs, fmt.Errorf("output %s: %w", o.settings.Name, err))
		}
	}
	return errors.Join(errs...)
}
