// Package telemetry is what a program tells about itself: log lines, metrics, traces, and whether it is
// alive and ready.
//
// One [Telemetry] serves a whole process. [New] builds it without touching the network, so that everything
// can log and count from the first line on; [Telemetry.Start] opens the HTTP listener; [Telemetry.Close]
// ends both and flushes the traces.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	// scope names our meter and tracer; it is the tracer's name in exported spans.
	scope = "defenderiot"
	// closeLimit bounds Close as a whole. A program has 8 s to stop, and confirming deliveries comes first.
	closeLimit = 3 * time.Second
	// drainLimit bounds the wait for requests in flight, so that one slow scrape cannot eat the time that
	// the traces need.
	drainLimit = time.Second
)

// Settings say what to tell and where. The zero value logs text at INFO to stderr, serves nothing and
// traces nothing.
type Settings struct {
	// Service, Version and Instance name the process in traces and in the metric target_info. OTEL_SERVICE_NAME
	// and OTEL_RESOURCE_ATTRIBUTES override them. An empty Instance is the host's name.
	Service, Version, Instance string
	// Listen is host:port of /healthz, /readyz and /metrics; "" serves nothing. Without a host it is
	// 127.0.0.1: these pages have no authentication, so other machines see them only where somebody
	// wrote an address such as 0.0.0.0. Port 0 takes a free one.
	Listen string
	// LogFormat is [FormatText] (also when empty) or [FormatJSON].
	LogFormat string
	// Level is the least level logged at first; see [Telemetry.SetLevel].
	Level slog.Level
	// OTLPEndpoint is the base URL of an OTLP/HTTP receiver, for example http://127.0.0.1:4318; /v1/traces
	// is appended. "": OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT; without these no traces.
	OTLPEndpoint string
	// LogOutput takes one Write per record; nil is os.Stderr.
	LogOutput io.Writer
	// Copy keeps copies of the log's lines for [Telemetry.Copies].
	Copy bool
}

// Telemetry holds the log, the meter and the tracer of one process. All methods are safe for concurrent use.
type Telemetry struct {
	// Logger writes the format of Settings.LogFormat. It works before Start and after Close.
	Logger *slog.Logger
	// Meter makes the instruments that /metrics shows. Units become part of the name: an instrument
	// "alert.latency" with unit "s" is alert_latency_seconds. Counters end in _total.
	Meter metric.Meter
	// Tracer starts spans; without an endpoint it is a no-op whose spans record nothing and, unless the
	// context already carries a remote parent, inject no header.
	Tracer trace.Tracer
	// Copies are the log's lines for Devo; nil unless Settings.Copy asks for them.
	Copies *Copies
	// Failures are what fails at the moment.
	Failures *Failures

	level    *slog.LevelVar
	listen   string
	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	traces   *tracing
	ready    checks
	alive    checks

	mu       sync.Mutex
	closed   bool
	listener net.Listener
	server   *http.Server
	serving  chan struct{} // closed when the serving goroutine has ended

	closing  sync.Once
	closeErr error
}

// New builds the telemetry of a process. It connects to nothing and starts no goroutine unless traces are
// on (then one, ended by [Telemetry.Close]). An error is one of the settings or of the OTEL_* variables
// and names it; the caller treats it as a configuration error.
//
// OpenTelemetry reports its own trouble process-wide: New points those reports at this Logger, so in a
// process with several Telemetry values the last one made gets them.
func New(ctx context.Context, s Settings) (*Telemetry, error) {
	if s.LogOutput == nil {
		s.LogOutput = os.Stderr
	}
	if s.Instance == "" {
		// Without a name the attribute is left out; nothing depends on it.
		s.Instance, _ = os.Hostname()
	}
	t := &Telemetry{level: new(slog.LevelVar)}
	t.level.Set(s.Level)
	logger, err := NewLogger(s.LogOutput, s.LogFormat, t.level)
	if err != nil {
		return nil, err
	}
	if s.Copy {
		t.Copies = newCopies()
		logger = slog.New(newCopyHandler(logger.Handler(), t.Copies))
	}
	t.Failures = newFailures()
	t.Logger = slog.New(&failureHandler{logger.Handler(), t.Failures})
	if t.listen, err = listenAddress(s.Listen); err != nil {
		return nil, err
	}
	endpoint, err := traceEndpoint(s.OTLPEndpoint, os.Getenv)
	if err != nil {
		return nil, err
	}
	otel.SetLogger(logr.FromSlogHandler(diagnostics{logger.Handler()}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(diagnosticErrors(logger)))

	res, err := newResource(ctx, s, logger)
	if err != nil {
		return nil, err
	}
	if t.registry, t.meters, err = newMetrics(res, &t.ready); err != nil {
		return nil, err
	}
	t.Meter = t.meters.Meter(scope)
	if err := t.countDropped(); err != nil {
		return nil, err
	}
	if t.traces, err = newTracing(ctx, endpoint, res, logger); err != nil {
		return nil, err
	}
	t.Tracer = t.traces.tracer
	return t, nil
}

// SetLevel changes the least level logged, from the next record on, for every logger derived from Logger.
func (t *Telemetry) SetLevel(l slog.Level) { t.level.Set(l) }

// Close stops the listener, waits for requests in flight, sends the spans that wait, and gives everything
// back. It returns when ctx is done or after 3 s, whichever comes first, even if the trace receiver hangs;
// spans that could not be sent by then are lost and the error says how many. Later calls return the first
// call's result.
func (t *Telemetry) Close(ctx context.Context) error {
	t.closing.Do(func() { t.closeErr = t.close(ctx) })
	return t.closeErr
}

func (t *Telemetry) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	t.stopServing(ctx)
	var errs []error
	if err := t.traces.close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("telemetry: close traces: %w", err))
	}
	// The meter provider has only a reader that is read on scrape: this cannot wait for anything.
	if err := t.meters.Shutdown(context.WithoutCancel(ctx)); err != nil {
		errs = append(errs, fmt.Errorf("telemetry: close metrics: %w", err))
	}
	return errors.Join(errs...)
}
