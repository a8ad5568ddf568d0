package telemetry

import (
	"context"
	"log/slog"
)

// diagnostics passes on what OpenTelemetry says about itself, but of the attributes only the error: others
// hold raw settings, for example the entries of OTEL_EXPORTER_OTLP_HEADERS, which are often tokens.
type diagnostics struct{ slog.Handler }

// sdkWarning is where logr's V(1), at which the SDK logs its warnings, arrives.
const sdkWarning = slog.Level(-1)

func (d diagnostics) Enabled(ctx context.Context, l slog.Level) bool {
	return d.Handler.Enabled(ctx, sdkLevel(l))
}

func sdkLevel(l slog.Level) slog.Level {
	if l == sdkWarning {
		return slog.LevelWarn
	}
	return l
}

func (d diagnostics) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, sdkLevel(r.Level), "OpenTelemetry: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if _, ok := a.Value.Any().(error); ok {
			clean.AddAttrs(slog.Any("error", a.Value.Any()))
		}
		return true
	})
	return d.Handler.Handle(ctx, clean)
}

func (d diagnostics) WithAttrs([]slog.Attr) slog.Handler { return d }

func (d diagnostics) WithGroup(string) slog.Handler { return d }

// diagnosticErrors returns what takes the errors that OpenTelemetry has nobody to return to. The incident
// never resolves: there is no success to hear of.
func diagnosticErrors(logger *slog.Logger) func(error) {
	incident := NewIncident(logger, "OpenTelemetry", IncidentLevel(slog.LevelWarn))
	return func(err error) { incident.Report(err) }
}
