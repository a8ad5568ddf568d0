package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// knownKey is a key of the known collector's file: what it may be, what it is when it is absent, and what is said of
// it when it has no meaning here.
type knownKey struct {
	path string
	// without is another name of the key, which is taken out; at is where the value is found then.
	without, at string
	absent      any // nil: the key is required, or there is no default
	ok          []string
	okIs        []any // what they are; nil: what is written
	bad         []string
	// said is in the one warning about the key; empty: it works, and nothing is said.
	said string
	// saidOf limits said to these of ok.
	saidOf []string
}

const (
	knownInput   = "inputs.defender_for_iot"
	knownService = knownInput + ".services.iot_security_alerts"
	knownOutput  = "outputs.devo_1.config"
)

// whole is a key that takes a whole number.
func whole(path string, low, high, absent int, said string) knownKey {
	return knownKey{
		path: path, absent: absent, said: said,
		ok:  []string{fmt.Sprint(low), fmt.Sprint(high), fmt.Sprintf("%q", fmt.Sprint(high))},
		bad: []string{fmt.Sprint(low - 1), fmt.Sprint(high + 1), "1.5", "many", "[1]"}, okIs: []any{low, high, high},
	}
}

func yesOrNo(path string, absent bool, said string) knownKey {
	return knownKey{path: path, absent: absent, said: said, ok: []string{"true", "false", "yes", `"true"`}, okIs: []any{true, false, true, true}, bad: []string{"7", "perhaps", "[true]"}}
}

func text(path string, absent any, said string, ok ...string) knownKey {
	return knownKey{path: path, absent: absent, said: said, ok: ok, bad: []string{"{a: b}"}}
}

// requests is an entry of requests_limits as it is read: the period in nanoseconds.
func requests(n, seconds int) any {
	return map[string]any{"number_of_requests": n, "period": seconds * 1_000_000_000}
}

func requestsLimits(path string) knownKey {
	return knownKey{path: path, absent: []any{},
		okIs: []any{
			[]any{requests(-1, 86400)}, []any{requests(9999999, 5*2592000), requests(1, 31536000)},
			[]any{requests(0, 1), requests(3, 120), requests(4, 10800), requests(5, 604800)},
		},
		ok: []string{
			"[{period: 1d, number_of_requests: -1}]", "[{period: 5M, number_of_requests: 9999999}, {period: 1y, number_of_requests: 1}]",
			"[{period: 1s, number_of_requests: 0}, {period: 2m, number_of_requests: 3}, {period: 3h, number_of_requests: 4}, {period: 1w, number_of_requests: 5}]",
		},
		bad: []string{"[{period: 1x, number_of_requests: 1}]", "[{period: d, number_of_requests: 1}]", "[{period: 1d, number_of_requests: 10000000}]", "[{period: 1d}]", "[{number_of_requests: 1}]", "{period: 1d}", "often"},
	}
}

// knownKeys are all keys of the known collector's file that is not a Collector Server's.
var knownKeys = []knownKey{
	{path: "globals.id", ok: []string{`"12345"`, "12345", "not_used", "true", "1.5"}, okIs: []any{"12345", "12345", "not_used", "true", "1.5"}, bad: []string{"{}", `""`}},
	{path: "globals.name", ok: []string{"my-Collector_1"}, bad: []string{"a/b", `""`, "ä"}},
	{path: "globals.name", ok: []string{"a.b#c d"}, okIs: []any{"a_b_c_d"}, said: "'a_b_c_d' is used"},
	text("globals.persistence.type", "filesystem", "", "filesystem", "json"),
	{path: "globals.persistence.type", ok: []string{"redis", "memory"}, said: "state is always kept in JetStream", bad: []string{"disk"}},
	{path: "globals.persistence.config.directory_name", absent: "state", ok: []string{"data", "/var/lib/state"}, bad: []string{`""`}},
	text("globals.persistence.config.host", "", "state is kept in JetStream, not in redis", "redis.example.com"),
	{path: "globals.persistence.config.port", ok: []string{"6379"}, said: "state is kept in JetStream, not in redis", bad: []string{"many"}},
	{path: "globals.persistence.config.db", ok: []string{"0", "3"}, said: "state is kept in JetStream, not in redis", bad: []string{"many"}},
	{path: "globals.persistence.config.password", ok: []string{"x"}, okIs: []any{"<secret>"}, said: "state is kept in JetStream, not in redis"},
	yesOrNo("globals.debug", false, ""),
	whole("globals.queue_max_size_in_mb", 1, 5120, 1024, "bus.limits bounds what waits"),
	whole("globals.queue_max_size_in_messages", 1, 100000, 10000, "bus.limits bounds what waits"),
	whole("globals.queue_max_elapsed_time_in_sec", 1, 600, 60, "events wait on disk"),
	whole("globals.queue_wrap_max_size_in_messages", 1, 500, 100, "the size of a batch is chosen by the collector"),
	yesOrNo("globals.queue_generate_metrics", false, "telemetry.listen always serves metrics"),
	whole("globals.sender_stats_period_in_sec", 60, 1800, 600, ""),
	{path: "globals.devo_sender_threshold_for_using_gzip_in_transport_layer", absent: 1.1, ok: []string{"-1.0", "0.5", "1.1"}, okIs: []any{-1, 0.5, 1.1}, bad: []string{"-1.1", "1.2", "much"}},
	whole("globals.devo_sender_compression_level", 1, 9, 6, ""),
	whole("globals.devo_sender_compression_buffer_in_bytes", 1, 10485760, 51200, ""),
	yesOrNo("globals.generate_collector_details", false, "metrics and traces tell these details"),
	{path: "globals.multiprocessing", ok: []string{"true"}, okIs: []any{nil}, said: "[WARNING] Illegal global setting has been ignored -> multiprocessing: true"},
	requestsLimits("globals.requests_limits"),

	{path: knownOutput + ".address", ok: []string{"collector-us.devo.io", "10.0.0.1"}, bad: []string{"https://x", "[a]", `""`}},
	{path: knownOutput + ".url", without: knownOutput + ".address", at: knownOutput + ".address", ok: []string{"collector-us.devo.io"}, bad: []string{"https://x"}},
	whole(knownOutput+".port", 1, 65535, 443, ""),
	{path: knownOutput + ".type", ok: []string{"SSL", "ssl"}},
	{path: knownOutput + ".type", ok: []string{"TCP"}, said: "the output's own type, devo_platform, says how events are carried"},
	text(knownOutput+".chain", nil, "", "other.crt"),
	text(knownOutput+".cert", nil, "", "other.crt"),
	text(knownOutput+".key", nil, "", "other.key"),
	{path: knownOutput + ".chain_loc", without: knownOutput + ".chain", at: knownOutput + ".chain", ok: []string{"other.crt"}},
	{path: knownOutput + ".cert_loc", without: knownOutput + ".cert", at: knownOutput + ".cert", ok: []string{"other.crt"}},
	{path: knownOutput + ".key_loc", without: knownOutput + ".key", at: knownOutput + ".key", ok: []string{"other.key"}},
	whole(knownOutput+".connecting_retries", 1, 10, 5, "connecting is tried for ever"),
	whole(knownOutput+".connecting_max_wait_in_seconds", 1, 60, 60, "a connection is tried again after 5 s at most"),
	whole(knownOutput+".connecting_initial_wait_in_seconds", 1, 60, 2, "a connection is tried again after 0.2 s"),
	whole(knownOutput+".sending_timeout", 1, 10, 5, "given up by the collector's own deadline"),
	whole(knownOutput+".sending_retries", 1, 10, 5, "what is not confirmed is sent again until it is"),
	whole(knownOutput+".sending_max_wait_in_seconds", 1, 60, 60, "waits are those of connecting"),
	whole(knownOutput+".sending_initial_wait_in_seconds", 1, 60, 2, "waits are those of connecting"),
	whole(knownOutput+".sending_wait_between_retries_in_seconds", 1, 60, 1, "waits are those of connecting"),
	{path: knownOutput + ".concurrent_connections", absent: 1, ok: []string{"1", "2", "64"}, said: "connections are used (where this key was ignored before, there was one)", saidOf: []string{"2", "64"}, bad: []string{"0", "65"}},
	whole(knownOutput+".period_sender_stats_in_seconds", 60, 1800, 600, ""),
	yesOrNo(knownOutput+".activate_final_queue", false, "events wait on disk until they are confirmed"),
	{path: knownOutput + ".threshold_for_using_gzip_in_transport_layer", absent: 1.1, ok: []string{"-1.0", "0.5", "1.1"}, okIs: []any{-1, 0.5, 1.1}, bad: []string{"-1.1", "1.2", "much"}},
	whole(knownOutput+".compression_level", 1, 9, 6, ""),
	whole(knownOutput+".compression_buffer_in_bytes", 1, 10485760, 51200, ""),
	yesOrNo(knownOutput+".generate_metrics", false, "telemetry.listen always serves metrics"),
	text("outputs.console_1.config.destination", "standard", "", "standard", "console", "stdout"),
	text("outputs.console_1.config.destination", "standard", "so events are taken and not printed", "elsewhere"),
	{path: "outputs.console_1.type", ok: []string{"console", "stdout"}, bad: []string{"printer"}},
	{path: "outputs.devo_1.type", ok: []string{"devo_platform", "relay"}, bad: []string{"printer"}},
	{path: "outputs.relay_1.type", ok: []string{"syslog", "sidecar", "in_house_relay"}, bad: []string{"printer"}},

	{path: knownInput + ".id", ok: []string{"23453", `"23453"`, "first"}, okIs: []any{"23453", "23453", "first"}, bad: []string{`""`, "{}"}},
	{path: knownInput + ".enabled", absent: true, ok: []string{"true", "yes"}, okIs: []any{true, true}, bad: []string{"7"}},
	{path: knownInput + ".enabled", ok: []string{"false"}, said: `The "input" configuration entry for defender_for_iot is not enabled`},
	{path: knownInput + ".environment", absent: "", ok: []string{"prod", "7"}, okIs: []any{"prod", "7"}, bad: []string{"[a]"}},
	requestsLimits(knownInput + ".requests_limits"),
	yesOrNo(knownInput+".autoconfig.enabled", true, ""),
	whole(knownInput+".autoconfig.refresh_interval_in_seconds", 1, 604800, 600, ""),
	whole(knownInput+".autoconfig.creation_timeout_in_second", 1, 604800, 60, ""),
	{path: knownService + ".request_period_in_seconds", absent: 60, ok: []string{"1", "604800", "300.0"}, okIs: []any{1, 604800, 300}, bad: []string{"0", "-1", "604801", "often"}},
	{path: knownService + ".request_period_in_seconds", ok: []string{"30.9"}, okIs: []any{30}, said: "30.9 is taken as 30"},
	requestsLimits(knownService + ".requests_limits"),
	{path: knownService + ".types", absent: []any{}, ok: []string{"[alerts]"}, said: "the service reads one type only", bad: []string{"{}"}},
	{path: knownService + ".obfuscation_data", absent: []any{}, ok: []string{`[{name: [a, "*", "0"]}, {name: [b], value: DEVO}, {name: [c], value: 7}]`}, bad: []string{"[{value: x}]", "[{name: []}]", "[{name: [a], value: {}}]", "x"}},
	{path: knownService + ".override_tag", absent: "", ok: []string{"my.app.iot.alerts"}, bad: []string{"my.app", "My.app.iot.alerts", "a.b.c.d.e.f.g.h.i"}},
	{path: knownService + ".override_limit_data_per_request", ok: []string{"1", "100"}, said: "a request asks for as many alerts as Azure gives in one answer", bad: []string{"0", "101"}},
	{path: knownService + ".historic_date_utc", ok: []string{`"2023-10-01 09:01:00"`}, said: "start_time_in_utc says from when on alerts are read", bad: []string{"2023-10-01", "yesterday"}},
	{path: knownService + ".start_time_in_utc", ok: []string{"2026-10-01T09:01:00Z", "2026-10-01 09:01:00"}, okIs: []any{"2026-10-01T09:01:00Z", "2026-10-01 09:01:00"}, bad: []string{"yesterday", "2999-10-01T09:01:00Z"}},
}

const knownFile = `
globals: {id: "10001", name: collector}
outputs:
  devo_1: {type: devo_platform, config: {address: collector-eu.devo.io, chain: chain.crt, cert: d.crt, key: d.key}}
  relay_1: {type: syslog, config: {address: 127.0.0.1, port: 13000}}
  console_1: {type: console}
inputs:
  defender_for_iot:
    id: "23453"
    credentials: {tenant_id: a, client_id: b, client_secret: c}
    services: {iot_security_alerts: {}}
`

// Every key of the known collector's file is taken with its type, range and default, and works, or is answered by one
// warning that says what takes its place.
func TestKnownKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range knownKeys {
		if k.without == "" && k.absent != nil {
			c, warnings, err := parseKnown(t, "", nil, "")
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if got := valueAt(t, c, k.path); !same(got, k.absent) {
				t.Errorf("%s is %v when it is absent, want %v", k.path, got, k.absent)
			}
		}
		for i, written := range k.ok {
			name := k.path + ": " + written
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
			c, warnings, err := parseKnown(t, k.path, &written, k.without)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var want any
			if k.okIs != nil {
				want = k.okIs[i]
			} else if err := yaml.Unmarshal([]byte(written), &want); err != nil {
				t.Fatal(err)
			}
			at := k.path
			if k.at != "" {
				at = k.at
			}
			if got := valueAt(t, c, at); !same(got, want) && k.path != knownService+".obfuscation_data" {
				t.Errorf("%s: taken as %v (%T), want %v (%T)", name, got, got, want, want)
			}
			said := k.said
			if k.saidOf != nil && !slices.Contains(k.saidOf, written) {
				said = ""
			}
			switch {
			case said == "" && len(warnings) > 0:
				t.Errorf("%s: said %s", name, warningLines(warnings))
			case said != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].Text, said)):
				t.Errorf("%s: said %q, want one warning with %q", name, warningLines(warnings), said)
			}
		}
		for _, written := range k.bad {
			if _, _, err := parseKnown(t, k.path, &written, k.without); err == nil {
				t.Errorf("%s: %s is taken", k.path, written)
			} else if last := k.path[strings.LastIndexByte(k.path, '.')+1:]; !strings.Contains(errorLines(err), last) {
				t.Errorf("%s: %s: the error does not name it: %v", k.path, written, err)
			}
		}
	}
	if len(seen) < 150 {
		t.Errorf("only %d values were tried", len(seen))
	}
}

// parseKnown reads the file with one key set, and another one taken out.
func parseKnown(t *testing.T, path string, written *string, without string) (*Config, []Warning, error) {
	t.Helper()
	var root map[string]any
	if err := yaml.Unmarshal([]byte(knownFile), &root); err != nil {
		t.Fatal(err)
	}
	if without != "" {
		parent, last := below(root, without)
		delete(parent, last)
	}
	if written != nil {
		var document yaml.Node // keeps how it is written
		if err := yaml.Unmarshal([]byte(*written), &document); err != nil {
			t.Fatal(err)
		}
		parent, last := below(root, path)
		parent[last] = document.Content[0]
	}
	data, err := yaml.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return parseNow("config.yaml", data)
}

// below finds or makes the mapping that the last key of a path stands in.
func below(root map[string]any, path string) (parent map[string]any, last string) {
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		next, ok := root[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			root[name] = next
		}
		root = next
	}
	return root, names[len(names)-1]
}

// valueAt is what c holds at a path, as it prints.
func valueAt(t *testing.T, c *Config, path string) any {
	t.Helper()
	data, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := yaml.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	parent, last := below(root, path)
	return parent[last]
}

// same compares what is printed: a number is the same whether it is written as 1 or 1.0, and nothing is an empty list.
func same(got, want any) bool {
	if empty := reflect.ValueOf(want); want != nil && empty.Kind() == reflect.Slice && empty.Len() == 0 && got == nil {
		return true
	}
	return reflect.DeepEqual(got, want) || fmt.Sprint(got) == fmt.Sprint(want)
}
