package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"defenderiot/pkg/secret"
)

// finisher completes a valid configuration: other names of a key, globals that override, defaults that
// depend on a type. It warns of what is allowed but perhaps not meant.
type finisher struct {
	*report
	config *Config
	root   *value
	now    time.Time
}

func (f *finisher) finish() {
	f.globals()
	for _, name := range sortedKeys(f.config.Outputs) {
		o := f.config.Outputs[name]
		f.output(name, &o)
		f.config.Outputs[name] = o
	}
	for _, name := range sortedKeys(f.config.Inputs) {
		f.input(name, f.config.Inputs[name])
	}
	f.bus()
}

// sortedKeys are the names of a section in a stable order.
func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// say warns at the key of v.
func (f *finisher) say(v *value, format string, args ...any) {
	at := v.keyPosition()
	f.warn(at.line, at.column, v.path, "", fmt.Sprintf(format, args...))
}

func (f *finisher) globals() {
	g := &f.config.Globals
	if name := strings.NewReplacer(".", "_", "#", "_", " ", "_").Replace(g.Name); name != g.Name {
		f.say(f.root.find("globals", "name"), "The name '%s' holds characters that are not allowed; '%s' is used", g.Name, name)
		g.Name = name
	}
	if kind := g.Persistence.Type; kind != "filesystem" && kind != "json" {
		f.say(f.root.find("globals", "persistence", "type"), "Setting without effect -> globals.persistence.type: state is always kept in JetStream, the embedded one's files in the folder %s", g.Persistence.Config.DirectoryName)
	}
}

// only are the keys that have a meaning for some transports alone.
var only = map[string][]Transport{
	"address": {TransportTLS, TransportTCP}, "url": {TransportTLS, TransportTCP}, "port": {TransportTLS, TransportTCP},
	"chain": {TransportTLS}, "chain_loc": {TransportTLS}, "cert": {TransportTLS}, "cert_loc": {TransportTLS},
	"key": {TransportTLS}, "key_loc": {TransportTLS}, "verify_certificate": {TransportTLS}, "server_name": {TransportTLS},
	"concurrent_connections": {TransportTLS, TransportTCP}, "rotate_after_events": {TransportTLS, TransportTCP},
	"rotate_after_in_seconds": {TransportTLS, TransportTCP}, "destination": {TransportConsole},
	"threshold_for_using_gzip_in_transport_layer": {TransportTLS}, "compression_level": {TransportTLS}, "compression_buffer_in_bytes": {TransportTLS},
}

func (f *finisher) output(name string, o *Output) {
	c := &o.Config
	for _, alias := range []struct{ key, other *string }{
		{&c.Address, &c.URL}, {&c.Chain, &c.ChainLoc}, {&c.Cert, &c.CertLoc}, {&c.Key, &c.KeyLoc},
	} {
		if *alias.key == "" {
			*alias.key = *alias.other
		}
		*alias.other = ""
	}
	if c.Port == 0 && o.Transport() == TransportTLS {
		c.Port = defaultTLSPort
	}
	global := func(key string) bool { return f.root.given("globals", key) != nil }
	g := f.config.Globals
	if global("sender_stats_period_in_sec") {
		c.PeriodSenderStatsInSeconds = g.SenderStatsPeriodInSec
	}
	if global("devo_sender_threshold_for_using_gzip_in_transport_layer") {
		c.GzipThreshold = g.GzipThreshold
	}
	if global("devo_sender_compression_level") {
		c.CompressionLevel = g.CompressionLevel
	}
	if global("devo_sender_compression_buffer_in_bytes") {
		c.CompressionBufferInBytes = g.CompressionBufferInBytes
	}
	f.outputWarnings(name, *o)
}

func (f *finisher) outputWarnings(name string, o Output) {
	given := func(key string) *value { return f.root.given("outputs", name, "config", key) }
	for _, key := range sortedKeys(only) {
		if v := given(key); v != nil && !slices.Contains(only[key], o.Transport()) {
			f.say(v, "Setting without effect -> %s: an output of type %s has no use for it", v.path, o.Type)
		}
	}
	if v := given("destination"); v != nil && o.Transport() == TransportConsole && !o.Prints() {
		f.say(v, "%s: %s is none of standard, console and stdout, so events are taken and not printed", v.path, v.show())
	}
	if v := given("type"); v != nil && !(o.Transport() == TransportTLS && strings.EqualFold(o.Config.Carrier, "SSL")) {
		f.say(v, "Setting without effect -> %s: the output's own type, %s, says how events are carried", v.path, o.Type)
	}
	if v := given("verify_certificate"); v != nil && !o.Config.VerifyCertificate && o.Transport() == TransportTLS {
		f.say(v, "%s: the endpoint's certificate is not verified; anyone on the way can read and swallow events", v.path)
	}
	if v := given("concurrent_connections"); v != nil && o.Config.ConcurrentConnections > 1 && o.Transport() != TransportConsole {
		f.say(v, "%s: %d connections are used (where this key was ignored before, there was one)", v.path, o.Config.ConcurrentConnections)
	}
}

func (f *finisher) input(name string, in Input) {
	for key, s := range map[string]*secret.String{
		"client_secret": &in.Credentials.ClientSecret, "client_certificate_password": &in.Credentials.ClientCertificatePassword,
	} {
		if v := f.root.find("inputs", name, "credentials", key); v != nil && v.again != nil {
			*s = secret.Changing(s.Reveal(), v.again)
		}
	}
	f.config.Inputs[name] = in
	if !in.Enabled {
		f.say(f.root.find("inputs", name), `The "input" configuration entry for %s is not enabled`, name)
	}
	start := in.Services.IoTSecurityAlerts.StartTimeInUTC
	if v := f.root.given("inputs", name, "services", "iot_security_alerts", "start_time_in_utc"); v != nil && f.now.Sub(start.Time) > azureKeeps {
		f.say(v, "%s: %s is more than 90 days ago; Azure keeps alerts for 90 days and has none older", v.path, v.plainShow())
	}
}

func (f *finisher) bus() {
	if v := f.root.find("bus", "password"); v != nil && v.again != nil {
		f.config.Bus.Password = secret.Changing(f.config.Bus.Password.Reveal(), v.again)
	}
	if !f.config.Bus.IsEmbedded() {
		if v := f.root.given("bus", "embedded"); v != nil {
			f.say(v, "Setting without effect -> bus.embedded: with bus.url there is no embedded server")
		}
		return
	}
	for _, key := range []string{"user", "password", "tls"} {
		if v := f.root.given("bus", key); v != nil {
			f.say(v, "Setting without effect -> %s: it belongs to bus.url, which is not set", v.path)
		}
	}
}
