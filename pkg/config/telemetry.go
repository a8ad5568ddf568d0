package config

import "log/slog"

// The values of Telemetry.LogFormat.
const (
	LogText = "text"
	LogJSON = "json"
)

// Telemetry is the section `telemetry`.
type Telemetry struct {
	Listen       string `yaml:"listen" jsonschema:"pattern=^\\S*:[0-9]+$,default=127.0.0.1:8080" jsonschema_description:"Where /healthz, /readyz and /metrics are served; port 0 takes a free one."`
	OTLPEndpoint string `yaml:"otlp_endpoint" jsonschema:"pattern=^https?://[^\\s/@]+(/[^\\s@]*)?$" jsonschema_description:"Where traces are sent over OTLP/HTTP, for example http://127.0.0.1:4318. Absent: the standard variables OTEL_*; without these, no traces."`
	LogFormat    string `yaml:"log_format" jsonschema:"enum=text,enum=json,default=text" jsonschema_description:"text: the line format that people know. json: one object a line."`
	LogLevel     string `yaml:"log_level" jsonschema:"enum=debug,enum=info,enum=warning,enum=error,default=info" jsonschema_description:"The least level that is logged; globals.debug: true makes it debug."`
}

// Level is the least level to log.
func (c *Config) Level() slog.Level {
	switch {
	case c.Globals.Debug, c.Telemetry.LogLevel == "debug":
		return slog.LevelDebug
	case c.Telemetry.LogLevel == "warning":
		return slog.LevelWarn
	case c.Telemetry.LogLevel == "error":
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}
