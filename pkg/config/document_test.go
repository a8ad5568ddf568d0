package config

import (
	"regexp"
	"strings"
	"testing"

	described "github.com/invopop/jsonschema"
)

// The pages are the ones that people read, so they are compared where they stand.
func TestReference(t *testing.T) {
	page, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../docs/configuration.md", string(page))
	if strings.Contains(string(page), "<nil>") {
		t.Error("a default is missing")
	}
}

func TestSample(t *testing.T) {
	text, err := Sample()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../docs/config.sample.yaml", string(text))
	env := func(name string) (string, bool) { return "x", name == "DEFENDER_CLIENT_SECRET" }
	parse := func(text string) (*Config, []Warning, error) { return Parse("config.sample.yaml", []byte(text), env) }
	c, warnings, err := parse(string(text))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %s", err, warningLines(warnings))
	}
	if c.Outputs["devo_1"].HostPort() != "collector-eu.devo.io:443" || c.Inputs[InputName].Credentials.Kind() != CredentialClientSecret {
		t.Errorf("got %+v", c)
	}
	// Each commented key by itself, with the comments that it stands below, is a file that is taken.
	lines := strings.Split(string(text), "\n")
	key := regexp.MustCompile(`^( *)#([a-z0-9_]+):( .*)?$`)
	taken := 0
	for i, line := range lines {
		m := key.FindStringSubmatch(line)
		if m == nil || m[3] == "" || alternative[m[2]] {
			continue
		}
		on := append([]string(nil), lines...)
		on[i] = m[1] + m[2] + ":" + m[3]
		for j, depth := i-1, len(m[1]); j >= 0 && depth > 0; j-- {
			indent := len(lines[j]) - len(strings.TrimLeft(lines[j], " "))
			if strings.TrimSpace(lines[j]) == "" || indent >= depth || !strings.HasSuffix(lines[j], ":") {
				continue
			}
			depth = indent
			on[j] = strings.Replace(lines[j], "#", "", 1)
		}
		if _, _, err := parse(strings.Join(on, "\n")); err != nil {
			t.Errorf("%s: %v", strings.TrimSpace(line), err)
			continue
		}
		taken++
	}
	if taken < 25 {
		t.Errorf("only %d commented keys were tried", taken)
	}
}

// alternative are the keys that take another's place or need another one.
var alternative = map[string]bool{
	"client_certificate": true, "client_certificate_password": true, "client_id": true, "object_id": true, "resource_id": true, "token_file": true,
	"authority_host": true, "resource_manager_endpoint": true, "resource_manager_audience": true, "ca_file": true,
	"user": true, "password": true, "cert": true, "key": true,
}

// Every key with an effect has a value in the sample, and the sample names no key that is none.
func TestSampleIsComplete(t *testing.T) {
	m, err := model()
	if err != nil {
		t.Fatal(err)
	}
	unused := make(map[string]bool)
	for path := range sampleValues {
		unused[path] = true
	}
	for _, path := range sampleSet {
		unused[path] = true
	}
	var walk func(path string, s *described.Schema)
	walk = func(path string, s *described.Schema) {
		delete(unused, path)
		if s.AdditionalProperties != nil && s.AdditionalProperties.Properties != nil {
			path, s = path+".*", s.AdditionalProperties
		}
		if s.Properties == nil || s.Properties.Len() == 0 {
			idle := strings.HasPrefix(s.Description, withoutEffect) || strings.HasPrefix(s.Description, "Another name of ")
			if _, ok := sampleValues[path]; !ok && byDefault(s) == nil && !idle {
				t.Errorf("%s has neither a default nor a value in the sample", path)
			}
			return
		}
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			walk(join(path, p.Key), p.Value)
		}
	}
	walk("", m.root)
	for path := range unused {
		t.Errorf("the sample has a value for %s, which is no key", path)
	}
}
