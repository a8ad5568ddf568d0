package config

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"defenderiot/pkg/secret"
)

// busVariable names the server for a file that names none: the containers of a compose file take the
// configuration that people have, and the server's address is the compose file's business.
const busVariable = "BUS_URL"

// Bus is the section `bus`.
type Bus struct {
	URL       string        `yaml:"url" jsonschema:"pattern=^(nats|tls|ws|wss)://[^\\s/@\\,]+(\\,(nats|tls|ws|wss)://[^\\s/@\\,]+)*$" jsonschema_description:"The nats-server, or several separated by commas: nats://host:4222. Absent: $BUS_URL, and $BUS_USER, $BUS_PASSWORD, $BUS_REPLICAS, $BUS_CA, $BUS_CERT, $BUS_KEY for the keys of the like name; without it a JetStream server within the process. User and password have keys of their own."`
	User      string        `yaml:"user" jsonschema:"minLength=1" jsonschema_description:"The user at the nats-server. Each program has its own: fetcher, dedup, sender, collector, operator, admin."`
	Password  secret.String `yaml:"password" jsonschema_description:"The user's password."`
	TLS       *BusTLS       `yaml:"tls" jsonschema_description:"TLS to the nats-server; {} trusts the system's authorities."`
	Embedded  Embedded      `yaml:"embedded" jsonschema_description:"The JetStream server within the process."`
	Replicas  int           `yaml:"replicas" jsonschema:"enum=1,enum=3,enum=5,default=1" jsonschema_description:"Copies of each stream and bucket; more than one needs a cluster."`
	Retention Retention     `yaml:"retention" jsonschema_description:"How long is kept."`
	Limits    Limits        `yaml:"limits" jsonschema_description:"How much is kept. A full stream makes the stage before it wait; nothing is dropped."`
}

// IsEmbedded reports whether the JetStream server is within the process.
func (b Bus) IsEmbedded() bool { return b.URL == "" }

// BusTLS is `bus.tls`.
type BusTLS struct {
	CA   string `yaml:"ca" jsonschema:"minLength=1" jsonschema_description:"PEM file of the authorities that signed the server's certificate, relative to ./certs/. Absent: the system's."`
	Cert string `yaml:"cert" jsonschema:"minLength=1" jsonschema_description:"PEM file of the client certificate, relative to ./certs/."`
	Key  string `yaml:"key" jsonschema:"minLength=1" jsonschema_description:"PEM file of the client certificate's private key, relative to ./certs/."`
}

// Embedded is `bus.embedded`.
type Embedded struct {
	Listen string `yaml:"listen" jsonschema:"pattern=^\\S*:[0-9]+$,default=127.0.0.1:0" jsonschema_description:"Where the collector's commands reach the server; port 0 takes a free one. Keep it on loopback."`
	Sync   Sync   `yaml:"sync" jsonschema:"default=always" jsonschema_description:"always: what is acknowledged is on the disk. A duration: it is there within that time; a crash of the machine loses what came since."`
}

// Retention is `bus.retention`.
type Retention struct {
	Unique Duration `yaml:"unique" jsonschema:"default=720h" jsonschema_description:"How long events are kept for replay. Never less than until they are confirmed."`
	Hashes Duration `yaml:"hashes" jsonschema:"default=3600h" jsonschema_description:"How long an alert is known as seen. More than retention.unique, and more than 90 days and the lookback together."`
}

// Limits is `bus.limits`.
type Limits struct {
	Raw    Bytes `yaml:"raw" jsonschema_description:"The most that waits to be deduplicated." jsonschema_extras:"default=1GiB"`
	Unique Bytes `yaml:"unique" jsonschema_description:"The most that is kept for the outputs and for replay." jsonschema_extras:"default=16GiB"`
}

// busVariables are the other keys that can come from the environment, and only together with $BUS_URL: a
// password is for the server that it was made for.
var busVariables = []struct{ variable, key string }{
	{"BUS_USER", "user"}, {"BUS_PASSWORD", "password"}, {"BUS_REPLICAS", "replicas"},
	{"BUS_CA", "tls.ca"}, {"BUS_CERT", "tls.cert"}, {"BUS_KEY", "tls.key"},
}

// busFromEnvironment puts $BUS_URL into a file without bus.url, and the other variables into what else it does not
// say, before anything is checked: what holds for the key in the file holds for the variable.
func busFromEnvironment(root *value, env func(string) (string, bool)) {
	url, ok := env(busVariable)
	if !ok || url == "" || root.kind != yaml.MappingNode {
		return
	}
	bus := subsection(root, "bus")
	if bus == nil || !setFrom(bus, "url", busVariable, url) {
		return
	}
	for _, v := range busVariables {
		text, ok := env(v.variable)
		if !ok || text == "" {
			continue
		}
		within, key := bus, v.key
		if name, nested, ok := strings.Cut(v.key, "."); ok {
			if within, key = subsection(bus, name), nested; within == nil {
				continue
			}
		}
		setFrom(within, key, v.variable, text)
	}
}

// subsection is the mapping below v, made if v has none; nil where something else stands, which is said when the
// file is checked.
func subsection(v *value, name string) *value {
	c := v.field(name)
	if c == nil || c.isNull() {
		if c != nil {
			v.remove(c)
		}
		c = &value{kind: yaml.MappingNode, name: name, path: join(v.path, name), where: v.where}
		v.children = append(v.children, c)
	}
	if c.kind != yaml.MappingNode {
		return nil
	}
	return c
}

// setFrom sets a key from a variable; false if the file has it.
func setFrom(v *value, key, variable, text string) bool {
	if given := v.field(key); given != nil {
		if !given.isNull() {
			return false
		}
		v.remove(given)
	}
	c := &value{
		kind: yaml.ScalarNode, tag: tagText, text: text, written: "$" + variable,
		name: key, path: join(v.path, key), where: v.where,
	}
	switch key {
	case "replicas":
		c.tag, c.plain = tagInt, true
	case "password":
		c.written = text // it is a secret and so never printed, and file:// is read anew
	}
	v.children = append(v.children, c)
	return true
}
