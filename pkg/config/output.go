package config

import (
	"net"
	"strconv"
)

// The kinds of output, as `type` names them.
const (
	OutputDevoPlatform = "devo_platform"
	OutputRelay        = "relay"
	OutputSyslog       = "syslog"
	OutputSidecar      = "sidecar"
	OutputInHouseRelay = "in_house_relay"
	OutputConsole      = "console"
	OutputStdout       = "stdout"
)

// Transport is how an output's events leave.
type Transport int

// The transports.
const (
	// TransportTLS is TLS with a client certificate: devo_platform, relay.
	TransportTLS Transport = iota
	// TransportTCP is plain TCP: syslog, sidecar, in_house_relay.
	TransportTCP
	// TransportConsole is standard output: console, stdout.
	TransportConsole
)

// defaultTLSPort is the port of a TLS output that names none.
const defaultTLSPort = 443

// Output is one entry of `outputs`.
type Output struct {
	Type   string       `yaml:"type" jsonschema:"required,enum=devo_platform,enum=relay,enum=syslog,enum=sidecar,enum=in_house_relay,enum=console,enum=stdout" jsonschema_description:"devo_platform and relay: TLS with a client certificate. syslog, sidecar and in_house_relay: plain TCP. console and stdout: printed."`
	Config OutputConfig `yaml:"config" jsonschema_description:"The settings of this output."`
}

// Transport is how this output's events leave.
func (o Output) Transport() Transport {
	switch o.Type {
	case OutputDevoPlatform, OutputRelay:
		return TransportTLS
	case OutputSyslog, OutputSidecar, OutputInHouseRelay:
		return TransportTCP
	default:
		return TransportConsole
	}
}

// Prints reports whether an output of type console or stdout prints events; with another destination it takes them
// and prints nothing, as it is known to do.
func (o Output) Prints() bool {
	switch o.Config.Destination {
	case "standard", "console", "stdout":
		return true
	}
	return false
}

// HostPort is the endpoint, `address:port`; empty for an output that is printed.
func (o Output) HostPort() string {
	if o.Transport() == TransportConsole {
		return ""
	}
	return net.JoinHostPort(o.Config.Address, strconv.Itoa(o.Config.Port))
}

// OutputConfig is `outputs.<name>.config`. After loading, `url`, `chain_loc`, `cert_loc` and `key_loc`
// have moved into Address, Chain, Cert and Key, and what globals override is overridden.
type OutputConfig struct {
	Address     string `yaml:"address" jsonschema:"pattern=^[^\\s/@]+$" jsonschema_description:"The endpoint's host name or IP address, for example collector-eu.devo.io."`
	URL         string `yaml:"url" jsonschema:"pattern=^[^\\s/@]+$" jsonschema_description:"Another name of address."`
	Port        int    `yaml:"port" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"The endpoint's TCP port."`
	Carrier     string `yaml:"type" jsonschema_description:"Accepted: SSL, which is what devo_platform and relay use whatever stands here."`
	Chain       string `yaml:"chain" jsonschema:"minLength=1" jsonschema_description:"PEM file of the authorities that signed the endpoint's certificate, relative to ./certs/."`
	ChainLoc    string `yaml:"chain_loc" jsonschema:"minLength=1" jsonschema_description:"Another name of chain."`
	Cert        string `yaml:"cert" jsonschema:"minLength=1" jsonschema_description:"PEM file of the client certificate of the Devo domain, relative to ./certs/."`
	CertLoc     string `yaml:"cert_loc" jsonschema:"minLength=1" jsonschema_description:"Another name of cert."`
	Key         string `yaml:"key" jsonschema:"minLength=1" jsonschema_description:"PEM file of the client certificate's private key, relative to ./certs/."`
	KeyLoc      string `yaml:"key_loc" jsonschema:"minLength=1" jsonschema_description:"Another name of key."`
	Destination string `yaml:"destination" jsonschema:"default=standard" jsonschema_description:"For console and stdout: prints when it is standard, console or stdout; with anything else events are taken and not printed."`

	VerifyCertificate bool   `yaml:"verify_certificate" jsonschema:"default=true" jsonschema_description:"Verify the endpoint's certificate: its chain and its name. Without it anyone on the way can read and swallow events."`
	ServerName        string `yaml:"server_name" jsonschema:"minLength=1" jsonschema_description:"The name that the endpoint's certificate must carry, if it is not the address."`

	ConcurrentConnections int  `yaml:"concurrent_connections" jsonschema:"minimum=1,maximum=64,default=1" jsonschema_description:"Connections a process keeps to this output."`
	RotateAfterEvents     int  `yaml:"rotate_after_events" jsonschema:"minimum=1,maximum=2500,default=2500" jsonschema_description:"Events after which a connection is closed, so that its delivery is confirmed, and the next one takes over."`
	RotateAfterInSeconds  int  `yaml:"rotate_after_in_seconds" jsonschema:"minimum=1,maximum=300,default=5" jsonschema_description:"Seconds after which a connection is closed, so that its delivery is confirmed, and the next one takes over."`
	From                  From `yaml:"from" jsonschema:"default=now" jsonschema_description:"Where an output that is new starts among the events kept: now, beginning, or a time in RFC 3339."`

	ConnectingMaxWaitInSeconds     int     `yaml:"connecting_max_wait_in_seconds" jsonschema:"minimum=1,maximum=60,default=60" jsonschema_description:"Accepted, without effect: a connection is tried again after 5 s at most, for ever."`
	ConnectingInitialWaitInSeconds int     `yaml:"connecting_initial_wait_in_seconds" jsonschema:"minimum=1,maximum=60,default=2" jsonschema_description:"Accepted, without effect: a connection is tried again after 0.2 s, then more slowly up to 5 s."`
	ConnectingRetries              int     `yaml:"connecting_retries" jsonschema:"minimum=1,maximum=10,default=5" jsonschema_description:"Accepted, without effect: connecting is tried for ever."`
	SendingTimeout                 int     `yaml:"sending_timeout" jsonschema:"minimum=1,maximum=10,default=5" jsonschema_description:"Accepted, without effect: a connection that takes no bytes is given up by the collector's own deadline."`
	SendingRetries                 int     `yaml:"sending_retries" jsonschema:"minimum=1,maximum=10,default=5" jsonschema_description:"Accepted, without effect: what is not confirmed is sent again until it is."`
	SendingMaxWaitInSeconds        int     `yaml:"sending_max_wait_in_seconds" jsonschema:"minimum=1,maximum=60,default=60" jsonschema_description:"Accepted, without effect: waits are those of connecting."`
	SendingInitialWaitInSeconds    int     `yaml:"sending_initial_wait_in_seconds" jsonschema:"minimum=1,maximum=60,default=2" jsonschema_description:"Accepted, without effect: waits are those of connecting."`
	SendingWaitBetweenRetries      int     `yaml:"sending_wait_between_retries_in_seconds" jsonschema:"minimum=1,maximum=60,default=1" jsonschema_description:"Accepted, without effect: waits are those of connecting."`
	PeriodSenderStatsInSeconds     int     `yaml:"period_sender_stats_in_seconds" jsonschema:"minimum=60,maximum=1800,default=600" jsonschema_description:"Seconds between the statistics lines of this output."`
	ActivateFinalQueue             bool    `yaml:"activate_final_queue" jsonschema:"default=false" jsonschema_description:"Accepted, without effect: events wait on disk until they are confirmed."`
	GzipThreshold                  float64 `yaml:"threshold_for_using_gzip_in_transport_layer" jsonschema:"minimum=-1,maximum=1.1,default=1.1" jsonschema_description:"The load from which on events go out as gzip members: below 0 always, above 1 never. The load is how many events wait behind one, in thousands and 1 at most, as the mean of the last 1000 events. Only for an endpoint that reads gzip."`
	CompressionLevel               int     `yaml:"compression_level" jsonschema:"minimum=1,maximum=9,default=6" jsonschema_description:"The level of gzip: 1 is the fastest, 9 the smallest."`
	CompressionBufferInBytes       int     `yaml:"compression_buffer_in_bytes" jsonschema:"minimum=1,maximum=10485760,default=51200" jsonschema_description:"The most bytes of events in one gzip member; a longer event has a member of its own."`
	GenerateMetrics                bool    `yaml:"generate_metrics" jsonschema:"default=false" jsonschema_description:"Accepted, without effect: telemetry.listen always serves metrics."`
}
