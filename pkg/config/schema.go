package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"sync"

	"defenderiot/pkg/secret"

	described "github.com/invopop/jsonschema"
	validating "github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema returns the JSON Schema (draft 2020-12) of the configuration file, indented, the same bytes
// for the same build. It describes the file after ${NAME} is replaced: an editor that checks against
// it may flag a ${NAME} where a number stands. Some rules are beyond it, such as that a start time is
// in the past; loading checks them.
func Schema() ([]byte, error) {
	m, err := model()
	if err != nil {
		return nil, err
	}
	return bytes.Clone(m.text), nil
}

// schemaName is the address that the schema has within the validator.
const schemaName = "collector-configuration.json"

// schemaModel is the schema in the forms that are needed of it.
type schemaModel struct {
	root      *described.Schema  // beside the Go types, for types and defaults
	text      []byte             // as printed
	raw       any                // decoded, to look up what a violated keyword says
	validator *validating.Schema // compiled
}

// model builds the schema once; an error is a fault of this package, found by its first test.
var model = sync.OnceValues(func() (*schemaModel, error) {
	root := reflectSchema()
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("config: print the schema: %w", err)
	}
	raw, err := validating.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("config: read the schema: %w", err)
	}
	compiler := validating.NewCompiler()
	if err := compiler.AddResource(schemaName, raw); err != nil {
		return nil, fmt.Errorf("config: add the schema: %w", err)
	}
	validator, err := compiler.Compile(schemaName)
	if err != nil {
		return nil, fmt.Errorf("config: compile the schema: %w", err)
	}
	return &schemaModel{root: root, text: append(text, '\n'), raw: raw, validator: validator}, nil
})

// reflectSchema derives the schema from the structs and adds the rules between keys.
func reflectSchema() *described.Schema {
	reflector := described.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		RequiredFromJSONSchemaTags: true,
		FieldNameTag:               "yaml",
		Mapper:                     mapScalar,
	}
	root := reflector.Reflect(Config{})
	root.Title = "Configuration of the Defender for IoT collector"
	root.Description = "In any value ${NAME} stands for an environment variable and $${ for ${ itself. A secret may be file:///path."
	relate(root)
	return root
}

// mapScalar is the schema of the types that are written as one scalar; nil for the others.
func mapScalar(t reflect.Type) *described.Schema {
	one := uint64(1)
	switch t {
	case reflect.TypeFor[secret.String]():
		return &described.Schema{Type: "string", MinLength: &one, WriteOnly: true}
	case reflect.TypeFor[Duration]():
		return &described.Schema{Type: "string", Pattern: durationPattern}
	case reflect.TypeFor[Period]():
		return &described.Schema{Type: "string", Pattern: periodPattern}
	case reflect.TypeFor[Sync]():
		return &described.Schema{Type: "string", Pattern: syncPattern}
	case reflect.TypeFor[Bytes]():
		return &described.Schema{Pattern: bytesPattern, Extras: map[string]any{"type": []string{"string", "integer"}}}
	case reflect.TypeFor[StartTime](), reflect.TypeFor[From](), reflect.TypeFor[regexp.Regexp]():
		return &described.Schema{Type: "string"}
	}
	return nil
}

// relate adds what the tags of single fields cannot say: which keys exclude or need each other, and
// where unknown keys are let pass with a warning. The description of such a rule is what is printed
// when it is broken.
func relate(root *described.Schema) {
	one := uint64(1)
	globals, outputs, inputs := property(root, "globals"), property(root, "outputs"), property(root, "inputs")
	persistence := property(globals, "persistence")
	output, input := outputs.AdditionalProperties, inputs.AdditionalProperties
	for _, lenient := range []*described.Schema{
		root, globals, persistence, property(persistence, "config"),
		output, property(output, "config"), input, property(input, "autoconfig"),
	} {
		lenient.AdditionalProperties = nil
	}
	for _, id := range []*described.Schema{property(globals, "id"), property(input, "id")} {
		id.Type, id.Extras = "", map[string]any{"type": []string{"string", "integer"}}
	}
	outputs.MinProperties, inputs.MinProperties = &one, &one
	outputs.PropertyNames = &described.Schema{MinLength: &one}
	inputs.PropertyNames = &described.Schema{Pattern: `^defender_for_iot(_[0-9A-Za-z_-]+)?$`}

	relateOutput(output)
	relateInput(input)

	bus := property(root, "bus")
	bus.DependentRequired = map[string][]string{"user": {"password"}, "password": {"user"}}
	property(bus, "tls").DependentRequired = map[string][]string{"cert": {"key"}, "key": {"cert"}}
}

func relateOutput(output *described.Schema) {
	config := property(output, "config")
	for _, pair := range [][2]string{{"address", "url"}, {"chain", "chain_loc"}, {"cert", "cert_loc"}, {"key", "key_loc"}} {
		config.AllOf = append(config.AllOf, &described.Schema{
			Description: fmt.Sprintf("%s and %s are two names of one key; only one of them is allowed", pair[0], pair[1]),
			Not:         &described.Schema{Required: pair[:]},
		})
	}
	either := func(name, other string) *described.Schema {
		return &described.Schema{
			Description: fmt.Sprintf("required key '%s' (or '%s') is missing", name, other),
			AnyOf:       []*described.Schema{{Required: []string{name}}, {Required: []string{other}}},
		}
	}
	needs := func(types []any, text string, config *described.Schema) *described.Schema {
		return &described.Schema{
			Description: text,
			If:          &described.Schema{Required: []string{"type"}, Properties: properties("type", &described.Schema{Enum: types})},
			Then:        &described.Schema{Required: []string{"config"}, Properties: properties("config", config)},
		}
	}
	output.AllOf = []*described.Schema{
		needs([]any{OutputDevoPlatform, OutputRelay}, "devo_platform and relay need config with address, chain, cert and key; port is 443 if absent", &described.Schema{
			AllOf:      []*described.Schema{either("address", "url"), either("chain", "chain_loc"), either("cert", "cert_loc"), either("key", "key_loc")},
			Properties: properties("port", &described.Schema{Default: defaultTLSPort}),
		}),
		needs([]any{OutputSyslog, OutputSidecar, OutputInHouseRelay}, "syslog, sidecar and in_house_relay need config with address and port", &described.Schema{
			AllOf:    []*described.Schema{either("address", "url")},
			Required: []string{"port"},
		}),
	}
}

func relateInput(input *described.Schema) {
	credentials := property(input, "credentials")
	kinds := []CredentialKind{CredentialClientSecret, CredentialClientCertificate, CredentialManagedIdentity, CredentialWorkloadIdentity}
	exactlyOne := &described.Schema{Description: "exactly one of client_secret, client_certificate, managed_identity and workload_identity is needed; without any of them and without client_id the default chain signs in"}
	given := []*described.Schema{{Required: []string{"client_id"}}}
	for _, kind := range kinds {
		exactlyOne.OneOf = append(exactlyOne.OneOf, &described.Schema{Required: []string{string(kind)}})
		given = append(given, &described.Schema{Required: []string{string(kind)}})
	}
	exactlyOne.OneOf = append(exactlyOne.OneOf, &described.Schema{Not: &described.Schema{AnyOf: given}})
	credentials.AllOf = []*described.Schema{exactlyOne}
	credentials.DependentRequired = map[string][]string{
		"client_secret":               {"tenant_id", "client_id"},
		"client_certificate":          {"tenant_id", "client_id"},
		"client_certificate_password": {"client_certificate"},
	}
	few := uint64(1)
	identity := property(credentials, "managed_identity")
	identity.AllOf = []*described.Schema{{
		Description: "at most one of client_id, object_id and resource_id is allowed", MaxProperties: &few,
	}}

	custom := &described.Schema{Required: []string{"cloud"}, Properties: properties("cloud", &described.Schema{Const: CloudCustom})}
	input.AllOf = []*described.Schema{
		{If: custom, Then: &described.Schema{Required: []string{"custom_cloud"}}},
		{
			Description: "custom_cloud is allowed with cloud: custom only",
			AnyOf:       []*described.Schema{custom, {Not: &described.Schema{Required: []string{"custom_cloud"}}}},
		},
	}

	service := property(property(input, "services"), "iot_security_alerts")
	filled := &described.Schema{MinItems: &few}
	both := properties("subscriptions", filled)
	both.Set("management_groups", filled)
	service.AllOf = []*described.Schema{{
		Description: "only one of subscriptions and management_groups is allowed",
		Not:         &described.Schema{Required: []string{"subscriptions", "management_groups"}, Properties: both},
	}}
	scalar := property(property(service, "obfuscation_data").Items, "value")
	scalar.Extras = map[string]any{"type": []string{"string", "number", "boolean"}}
}
