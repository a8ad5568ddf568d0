package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"defenderiot/pkg/fault"

	validating "github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files")

// planted is the secret in the test files: whatever is printed of them, this must not be in it.
const planted = "s3cr3t"

func environment(name string) (string, bool) {
	text, ok := map[string]string{"WORD": planted + "-word", "PORT": "8443", "SECRET": planted + "-from-env", "YES": "true"}[name]
	return text, ok
}

// now is fixed: what the files say of times is relative to it.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func parseNow(path string, data []byte) (*Config, []Warning, error) {
	return parse(&report{file: filepath.Base(path)}, data, "", environment, now)
}

// golden compares got with the file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n--- got\n%s--- want\n%s", file, got, want)
	}
}

// eachFile runs test for each configuration in a folder of testdata.
func eachFile(t *testing.T, folder string, test func(t *testing.T, path string, data []byte)) {
	t.Helper()
	ran := 0
	for _, ext := range []string{"yaml", "json"} {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*."+ext))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			ran++
			t.Run(filepath.Base(path), func(t *testing.T) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				test(t, path, data)
			})
		}
	}
	if ran == 0 {
		t.Fatalf("testdata/%s is empty", folder)
	}
}

// goldenName is the golden file beside a configuration.
func goldenName(path, ext string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ext }

// errorLines is an error with its hints, as the golden files have it.
func errorLines(err error) string {
	// The user id differs from machine to machine.
	text := err.Error() + "\n"
	if hint := fault.Hint(err); hint != "" {
		text += "hint: " + hint + "\n"
	}
	return strings.ReplaceAll(text, fmt.Sprintf("user id %d", os.Getuid()), "user id N")
}

func warningLines(warnings []Warning) string {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintln(&b, w)
	}
	return b.String()
}

func TestValidFilesAreTakenWithoutAWord(t *testing.T) {
	eachFile(t, "valid", func(t *testing.T, path string, data []byte) {
		c, warnings, err := parseNow(path, data)
		if err != nil {
			t.Fatal(err)
		}
		if len(warnings) > 0 {
			t.Errorf("warned: %s", warningLines(warnings))
		}
		noSecret(t, c)
	})
}

// noSecret prints c in every way there is.
func noSecret(t *testing.T, c *Config) {
	t.Helper()
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{string(asJSON), string(asYAML), fmt.Sprintf("%v %+v %#v", c, c, c)} {
		if strings.Contains(printed, planted) {
			t.Errorf("a secret shows in %s", printed)
		}
	}
}

func TestInvalidFiles(t *testing.T) {
	for _, folder := range []string{"invalid", "rules"} {
		eachFile(t, folder, func(t *testing.T, path string, data []byte) {
			c, _, err := parseNow(path, data)
			if err == nil {
				t.Fatalf("accepted: %v", c)
			}
			// For errors of a start time alone the rest is there, so that its outputs can be told.
			if onlyStart := !strings.Contains(err.Error(), "CollectorConfigurationException"); (c != nil) != onlyStart {
				t.Errorf("a configuration beside the error: %v", c != nil)
			} else if onlyStart {
				noSecret(t, c)
				if start := c.Inputs[InputName].Services.IoTSecurityAlerts.StartTimeInUTC; !start.IsZero() {
					t.Errorf("with the start time %v", start)
				}
			}
			if strings.Contains(err.Error(), planted) {
				t.Errorf("a secret shows in %v", err)
			}
			golden(t, goldenName(path, ".err"), errorLines(err))
		})
	}
}

func TestWarnedFiles(t *testing.T) {
	eachFile(t, "warned", func(t *testing.T, path string, data []byte) {
		c, warnings, err := parseNow(path, data)
		if err != nil {
			t.Fatal(err)
		}
		if len(warnings) == 0 {
			t.Fatal("no warning")
		}
		if strings.Contains(warningLines(warnings), planted) {
			t.Errorf("a secret shows in %s", warningLines(warnings))
		}
		noSecret(t, c)
		golden(t, goldenName(path, ".warn"), warningLines(warnings))
	})
}

func TestSchemaGolden(t *testing.T) {
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/schema.golden.json", string(schema))
}

// TestSchemaAgrees checks the files as an editor would, with nothing but the printed schema. The folder
// rules holds what is beyond a schema; a few of invalid are wrong before it applies.
func TestSchemaAgrees(t *testing.T) {
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := validating.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := validating.NewCompiler()
	if err := compiler.AddResource("schema.json", raw); err != nil {
		t.Fatal(err)
	}
	validator, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for folder, valid := range map[string]bool{"valid": true, "warned": true, "invalid": false} {
		eachFile(t, folder, func(t *testing.T, path string, data []byte) {
			var document any
			if err := yaml.Unmarshal(data, &document); err != nil {
				return // not even a document
			}
			for _, before := range []string{"yaml-", "json-", "environment-", "secret-file-", "lenient-"} {
				if strings.HasPrefix(filepath.Base(path), before) {
					return
				}
			}
			asJSON, err := json.Marshal(document)
			if err != nil {
				t.Fatal(err)
			}
			instance, err := validating.UnmarshalJSON(bytes.NewReader(asJSON))
			if err != nil {
				t.Fatal(err)
			}
			if err := validator.Validate(instance); (err == nil) != valid {
				t.Errorf("the schema says %v", err)
			}
		})
	}
}
