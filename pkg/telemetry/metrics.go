package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// LatencyBuckets are histogram bounds in seconds for the way of an alert, from its start to its
// confirmation: 50 ms for an idle system up to a day for a back-fill or an endpoint that was away. Pass
// them as metric.WithExplicitBucketBoundaries(telemetry.LatencyBuckets...); treat them as constant.
var LatencyBuckets = []float64{
	.05, .1, .25, .5, 1, 2, 5, 10, 30,
	60, 2 * 60, 5 * 60, 10 * 60, 30 * 60,
	3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600,
}

// Gatherer gives the figures of /metrics.
func (t *Telemetry) Gatherer() prometheus.Gatherer { return t.registry }

// newResource describes the process; what the environment says about it wins, as the OpenTelemetry
// specification wants it.
func newResource(ctx context.Context, s Settings, logger *slog.Logger) (*resource.Resource, error) {
	var attributes []attribute.KeyValue
	for _, a := range []attribute.KeyValue{
		semconv.ServiceName(s.Service), semconv.ServiceVersion(s.Version), semconv.ServiceInstanceID(s.Instance),
	} {
		if a.Value.AsString() != "" {
			attributes = append(attributes, a)
		}
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attributes...),
		resource.WithFromEnv(),
	)
	if res == nil {
		return nil, fmt.Errorf("telemetry: describe the process: %w", err)
	}
	if err != nil {
		// The parts that could be read are in res; a label is no reason to collect no alerts.
		logger.Warn("Parts of OTEL_RESOURCE_ATTRIBUTES are ignored; write key=value,key=value", "error", err)
	}
	return res, nil
}

// newMetrics builds the meter provider and the registry that /metrics reads. The registry is private:
// what libraries put in the default one does not appear.
func newMetrics(res *resource.Resource, ready *checks) (*prometheus.Registry, *sdkmetric.MeterProvider, error) {
	registry := prometheus.NewRegistry()
	version, commit, goVersion := BuildVersion()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "collector_build_info",
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go_version": goVersion},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		build,
		ready,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "collector_memory_limit_bytes",
			Help: "The most memory that this process can get: its container's limit, else the machine's memory; 0 if neither is known.",
		}, func() float64 { return float64(MemoryLimit()) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, nil, fmt.Errorf("telemetry: register metrics: %w", err)
		}
	}
	exporter, err := otelprometheus.New(
		otelprometheus.WithRegisterer(registry),
		// One scope makes all our instruments: its name on every line would only be noise.
		otelprometheus.WithoutScopeInfo(),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry: build the metrics exporter: %w", err)
	}
	return registry, sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res)), nil
}
