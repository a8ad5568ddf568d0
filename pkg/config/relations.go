package config

import (
	"fmt"
	"net"
	"strconv"
	"time"

	described "github.com/invopop/jsonschema"
)

// azureKeeps is how long Azure keeps an alert after its first detection.
const azureKeeps = 90 * day

// relations are the rules between keys that no schema can express. They work on the tree as the file
// has it, so that they are told together with what else is wrong; a value that is itself wrong takes
// part in none.
type relations struct {
	*report
	root   *value
	schema *described.Schema
}

func (r *relations) check() {
	r.retention()
	if v := r.sound("bus", "replicas"); v != nil && v.text != "1" && r.root.find("bus", "url") == nil {
		r.fail(v, codeStructure, "%s is not allowed; allowed: 1 without bus.url: the embedded server is alone", v.show())
	}
	for _, section := range [][]string{{"bus", "embedded", "listen"}, {"telemetry", "listen"}} {
		if v := r.sound(section...); v != nil {
			_, port, err := net.SplitHostPort(v.text)
			if err == nil {
				_, err = strconv.ParseUint(port, 10, 16)
			}
			if err != nil {
				r.fail(v, codeStructure, "%s is not allowed; allowed: host:port, port from 0 to 65535", v.show())
			} else if section[0] == "bus" && !isLoopback(v.text) {
				r.fail(v, codeStructure, "%s is not allowed; allowed: a loopback address such as 127.0.0.1:0; to share the bus between machines run a nats-server and set bus.url", v.show())
			}
		}
	}
}

func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// sound is the value of a key if it is there and nothing is wrong with it; else nil.
func (r *relations) sound(names ...string) *value {
	if v := r.root.find(names...); v != nil && !v.bad {
		return v
	}
	return nil
}

// length is what a duration of the section bus.retention amounts to, with its default; false if it is
// wrong.
func (r *relations) length(name string) (Duration, bool) {
	text, _ := byDefault(property(property(property(r.schema, "bus"), "retention"), name)).(string)
	if v := r.root.find("bus", "retention", name); v != nil {
		if v.bad {
			return 0, false
		}
		text = v.text
	}
	var d Duration
	err := d.UnmarshalText([]byte(text))
	return d, err == nil
}

// retention: hashes must outlive all that could bring an alert up again.
func (r *relations) retention() {
	hashes, ok := r.length("hashes")
	if !ok {
		return
	}
	// Where the file says nothing about hashes, what stands against its default is at fault.
	blame := func(v *value, need string) {
		if given := r.root.find("bus", "retention", "hashes"); given != nil {
			r.fail(given, codeStructure, "%s is not allowed; allowed: more than %s", given.show(), need)
		} else {
			r.fail(v, codeStructure, "%s needs bus.retention.hashes to be more than %s; its default is %s", v.show(), need, hashes)
		}
	}
	if unique, ok := r.length("unique"); ok && hashes <= unique {
		v := r.root.find("bus", "retention", "unique")
		if v == nil {
			v = r.root.find("bus", "retention", "hashes")
		}
		blame(v, "bus.retention.unique, "+unique.String()+", since an event that is kept must be known as seen")
	}
	inputs := r.root.find("inputs")
	if inputs == nil {
		return
	}
	lookback := property(property(property(property(r.schema, "inputs").AdditionalProperties, "services"), "iot_security_alerts"), "lookback_in_minutes")
	for _, input := range inputs.children {
		v := input.find("services", "iot_security_alerts", "lookback_in_minutes")
		text := fmt.Sprint(byDefault(lookback))
		if v != nil {
			text = v.text
		}
		minutes, err := strconv.ParseInt(text, 10, 32)
		if err != nil || v != nil && v.bad {
			continue
		}
		if need := azureKeeps + time.Duration(minutes)*time.Minute; hashes.Std() <= need {
			if v == nil {
				v = input
			}
			blame(v, need.String()+", which is 90 days and the lookback_in_minutes of "+input.name)
		}
	}
}
