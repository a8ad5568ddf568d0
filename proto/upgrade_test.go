package proto

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecordsOfEveryVersion: what any version has ever stored is read, as the golden record beside it.
func TestRecordsOfEveryVersion(t *testing.T) {
	paths, err := filepath.Glob("testdata/records/v*-*.json")
	if err != nil || len(paths) < PersistenceVersion {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, err := DecodeCheckpoint(data)
			if err != nil {
				t.Fatal(err)
			}
			compareRecord(t, name+".golden", c)
		})
	}
}

func compareRecord(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "records", name)
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(want)) != string(got) {
		t.Errorf("%s: %v\n%s", path, err, got)
	}
}

// The steps are those of versions to come: each sees what the one before it has made.
func TestStepsRunOneByOne(t *testing.T) {
	rename := func(from, to string) upgradeStep {
		return func(m map[string]json.RawMessage) error {
			v, ok := m[from]
			if !ok {
				return errors.New(from + " is missing")
			}
			m[to] = v
			delete(m, from)
			return nil
		}
	}
	steps := []upgradeStep{rename("a", "b"), rename("b", "c")}
	for in, want := range map[string]string{
		`{"@persistence_version":1,"a":7,"unknown":[1]}`: `{"@persistence_version":3,"c":7,"unknown":[1]}`,
		`{"@persistence_version":2,"b":7}`:               `{"@persistence_version":3,"c":7}`,
		`{"@persistence_version":3,"c":7}`:               `{"@persistence_version":3,"c":7}`,
	} {
		var version struct {
			V int `json:"@persistence_version"`
		}
		if err := json.Unmarshal([]byte(in), &version); err != nil {
			t.Fatal(err)
		}
		if got, err := raise([]byte(in), version.V, steps); err != nil || string(got) != want {
			t.Errorf("%s became %s, %v", in, got, err)
		}
	}
	if got, err := raise([]byte(`{"@persistence_version":1}`), 1, steps); err == nil || !strings.Contains(err.Error(), "from version 1: a is missing") {
		t.Errorf("%s, %v", got, err)
	}
}
