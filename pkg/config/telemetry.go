package config

import (
	"log/slog"

	"go.yaml.in/yaml/v3"
)

// listenVariable gives telemetry.listen to a file that has none: whether something scrapes the programs of a compose
// file over its network is the compose file's business.
const listenVariable = "TELEMETRY_LISTEN"

// The values of Telemetry.LogFormat.
const (
	LogText = "text"
	LogJSON = "json"
)

// The values of Telemetry.StatisticsFormat.
const (
	StatisticsMessages = "messages"
	StatisticsBytes    = "messages_and_bytes"
)

// Telemetry is the section `telemetry`.
type Telemetry struct {
	Listen       string `yaml:"listen" jsonschema:"pattern=^\\S*:[0-9]+$,default=127.0.0.1:8080" jsonschema_description:"Where /healthz, /readyz and /metrics are served; port 0 takes a free one. Absent: $TELEMETRY_LISTEN."`
	OTLPEndpoint string `yaml:"otlp_endpoint" jsonschema:"pattern=^https?://[^\\s/@]+(/[^\\s@]*)?$" jsonschema_description:"Where traces are sent over OTLP/HTTP, for example http://127.0.0.1:4318. Absent: the standard variables OTEL_*; without these, no traces."`
	LogFormat    string `yaml:"log_format" jsonschema:"enum=text,enum=json,default=text" jsonschema_description:"text: the line format that people know. json: one object a line."`
	LogLevel     string `yaml:"log_level" jsonschema:"enum=debug,enum=info,enum=warning,enum=error,default=info" jsonschema_description:"The least level that is logged; globals.debug: true makes it debug."`

	InternalEvents   bool   `yaml:"internal_events" jsonschema:"default=true" jsonschema_description:"Send the collector's own log, at info and above, to every output but console and stdout (table devo.collectors.out), and the metric message."`
	StatisticsFormat string `yaml:"statistics_format" jsonschema:"enum=messages,enum=messages_and_bytes,default=messages" jsonschema_description:"The senders' statistics line. messages: as the documentation of the known collector has it. messages_and_bytes: as its versions since 1.8.0 write it."`
}

// SendsInternal reports whether the output also gets the collector's own log. One that is printed does not:
// the log stands beside it on stderr already, and what is printed stays alerts alone.
func (c *Config) SendsInternal(o Output) bool {
	return c.Telemetry.InternalEvents && o.Transport() != TransportConsole
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

// telemetryFromEnvironment puts $TELEMETRY_LISTEN into a file without telemetry.listen, before anything is checked.
func telemetryFromEnvironment(root *value, env func(string) (string, bool)) {
	listen, ok := env(listenVariable)
	if !ok || listen == "" || root.kind != yaml.MappingNode {
		return
	}
	if section := subsection(root, "telemetry"); section != nil {
		setFrom(section, "listen", listenVariable, listen)
	}
}
