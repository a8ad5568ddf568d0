package config

import (
	"fmt"
	"slices"
	"strings"

	described "github.com/invopop/jsonschema"
)

// sampleNames are the names that the sample gives to what is named freely.
var sampleNames = map[string]string{"outputs": "devo_1", "inputs": InputName}

// sampleValues are the values of the sample: of the keys that everybody sets, and of those that have no
// default. The paths are those of the schema.
var sampleValues = map[string]string{
	"globals.id": `"12345"`, "globals.name": "defender_for_iot",
	"outputs.*.type": "devo_platform", "outputs.*.config.address": "collector-eu.devo.io", "outputs.*.config.port": "443",
	"outputs.*.config.chain": "chain.crt", "outputs.*.config.cert": "my_domain.crt", "outputs.*.config.key": "my_domain.key",
	"outputs.*.config.type": "SSL", "outputs.*.config.server_name": "collector.example.com",
	"inputs.*.id": `"23453"`, "inputs.*.environment": "prod",
	"inputs.*.credentials.tenant_id":                          "contoso.onmicrosoft.com",
	"inputs.*.credentials.client_id":                          "00000000-0000-0000-0000-000000000000",
	"inputs.*.credentials.client_secret":                      "${DEFENDER_CLIENT_SECRET}",
	"inputs.*.credentials.client_certificate":                 "collector.pem",
	"inputs.*.credentials.client_certificate_password":        "file:///run/secrets/certificate_password",
	"inputs.*.credentials.managed_identity.client_id":         "00000000-0000-0000-0000-000000000000",
	"inputs.*.credentials.managed_identity.object_id":         "00000000-0000-0000-0000-000000000000",
	"inputs.*.credentials.managed_identity.resource_id":       "/subscriptions/…/userAssignedIdentities/collector",
	"inputs.*.credentials.workload_identity.token_file":       "/var/run/secrets/azure/tokens/azure-identity-token",
	"inputs.*.custom_cloud.authority_host":                    "https://login.microsoftonline.com/",
	"inputs.*.custom_cloud.resource_manager_endpoint":         "https://management.azure.com",
	"inputs.*.custom_cloud.resource_manager_audience":         "https://management.core.windows.net/",
	"inputs.*.custom_cloud.ca_file":                           "azure-ca.crt",
	"globals.requests_limits":                                 "[{period: 1d, number_of_requests: 10000}]",
	"inputs.*.requests_limits":                                "[{period: 1d, number_of_requests: 10000}]",
	"inputs.*.services.iot_security_alerts.start_time_in_utc": `"2023-10-01T09:01:00Z"`,
	"inputs.*.services.iot_security_alerts.subscriptions":     "[00000000-0000-0000-0000-000000000000]",
	"inputs.*.services.iot_security_alerts.management_groups": "[plants]",
	"inputs.*.services.iot_security_alerts.override_tag":      "my.app.defender.alerts",
	"inputs.*.services.iot_security_alerts.obfuscation_data":  `[{name: [properties, extendedProperties, "*"]}]`,
	"inputs.*.services.iot_security_alerts.requests_limits":   "[{period: 1d, number_of_requests: 10000}]",
	"bus.url": "nats://nats:4222", "bus.user": "collector", "bus.password": "file:///run/secrets/bus_password",
	"bus.tls.ca": "bus-ca.crt", "bus.tls.cert": "bus.crt", "bus.tls.key": "bus.key",
	"telemetry.otlp_endpoint": "http://127.0.0.1:4318",
}

// sampleSet are the keys that the sample sets; the others stand in it as comments.
var sampleSet = []string{
	"globals.id", "globals.name",
	"outputs.*.type", "outputs.*.config.address", "outputs.*.config.port", "outputs.*.config.chain", "outputs.*.config.cert", "outputs.*.config.key",
	"inputs.*.id", "inputs.*.credentials.tenant_id", "inputs.*.credentials.client_id", "inputs.*.credentials.client_secret",
	"inputs.*.services.iot_security_alerts.request_period_in_seconds",
}

// sampleHead stands at the top.
const sampleHead = `# A configuration to begin with: fill in what is not a comment, then run ` + "`collector check`" + `.
# A key behind # has its default here, or an example where there is none; take the # away to set it (and those of
# the keys that it stands below). The file of the former collector for Defender for IoT works as it is.
`

// Sample returns a configuration file to begin with, in YAML: every key that has an effect, with what it means;
// those that need not be set are comments. It is the same bytes for the same build, and valid once the
// environment has DEFENDER_CLIENT_SECRET.
func Sample() ([]byte, error) {
	m, err := model()
	if err != nil {
		return nil, err
	}
	var s sample
	s.b.WriteString(sampleHead)
	s.keys("", m.root, 0, false)
	return []byte(s.b.String()), nil
}

// sample is a file in the making.
type sample struct{ b strings.Builder }

// line writes a line at a depth: a key, or one behind #, or a sentence behind # and a space.
func (s *sample) line(depth int, mark, text string) {
	s.b.WriteString(strings.Repeat("  ", depth) + mark + text + "\n")
}

// keys writes the keys of a mapping; comment says that the mapping itself is one.
func (s *sample) keys(path string, of *described.Schema, depth int, comment bool) {
	for p := of.Properties.Oldest(); p != nil; p = p.Next() {
		key, child := join(path, p.Key), p.Value
		if strings.HasPrefix(child.Description, withoutEffect) || strings.HasPrefix(child.Description, "Another name of ") {
			continue
		}
		set := !comment && slices.ContainsFunc(sampleSet, func(one string) bool { return one == key || strings.HasPrefix(one, key+".") })
		inner, name := child, ""
		if child.AdditionalProperties != nil && child.AdditionalProperties.Properties != nil {
			inner, name = child.AdditionalProperties, sampleNames[key]
		}
		if depth == 0 {
			s.b.WriteString("\n")
		}
		isMapping := inner.Properties != nil && inner.Properties.Len() > 0
		if isMapping && !told(inner) {
			continue
		}
		for _, line := range wrapped(child.Description, 108-2*depth) {
			s.line(depth, "# ", line)
		}
		mark := "#"
		if set {
			mark = ""
		}
		switch {
		case isMapping && name != "":
			s.line(depth, mark, p.Key+":")
			s.line(depth+1, mark, name+":")
			s.keys(key+".*", inner, depth+2, !set)
		case isMapping:
			s.line(depth, mark, p.Key+":")
			s.keys(key, inner, depth+1, !set)
		default:
			s.line(depth, mark, p.Key+": "+sampleValue(key, child))
		}
	}
}

// told reports whether any key of a mapping has an effect.
func told(of *described.Schema) bool {
	for p := of.Properties.Oldest(); p != nil; p = p.Next() {
		if !strings.HasPrefix(p.Value.Description, withoutEffect) {
			return true
		}
	}
	return false
}

func sampleValue(key string, of *described.Schema) string {
	if text, ok := sampleValues[key]; ok {
		return text
	}
	if list, ok := byDefault(of).([]any); ok {
		return "[" + strings.Join(texts(list), ", ") + "]"
	}
	return fmt.Sprint(byDefault(of))
}

// wrapped breaks text between words.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
