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
	// Compression says when frames go out as gzip members; nil: never.
	Compression *Compression
}

// Options of a Sender; all fields are required.
type Options struct {
	Bus      *bus.Bus
	Outputs  []OutputSettings
	Instance string // unique per start of a process
	Logger   *slog.Logger
	Meter    metric.Meter
	Tracer   trace.Tracer
}

// Sender is the service.
type Sender struct {
	outputs []*output
}

// New makes a Sender. Errors are settings out of their bounds.
func New(o Options) (*Sender, error) {
	m, err := newMetrics(o.Meter)
	if err != nil {
		return nil, err
	}
	s := &Sender{}
	for _, settings := range o.Outputs {
		if settings.Connections < 1 || settings.Connections > 64 {
			return nil, fmt.Errorf("output %s: concurrent_connections %d is not between 1 and 64", settings.Name, settings.Connections)
		}
		if settings.RotateEvents < 1 || settings.RotateEvents > maxWindow || settings.RotateAfter <= 0 {
			return nil, fmt.Errorf("output %s: rotation after %d events or %v is out of bounds", settings.Name, settings.RotateEvents, settings.RotateAfter)
		}
		out := newOutput(o, settings, m)
		if out.compression, err = newCompression(settings.Compression); err != nil {
			return nil, fmt.Errorf("output %s: %w", settings.Name, err)
		}
		s.outputs = append(s.outputs, out)
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
	group.Wait()
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
