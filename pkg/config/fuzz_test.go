package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// held is what every environment variable holds.
const held = "qzheldqz"

// FuzzParse: whatever the bytes, there is either a configuration or an error, with the file and a place
// in each line, and neither shows the secret.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"valid", "invalid", "rules", "warned"} {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.*"))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			ext := filepath.Ext(path)
			if ext != ".yaml" && ext != ".json" {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(ext == ".json", data)
		}
	}
	f.Fuzz(func(t *testing.T, asJSON bool, data []byte) {
		name := "fuzz.yaml"
		if asJSON {
			name = "fuzz.json"
		}
		c, _, err := Parse(name, data, func(key string) (string, bool) { return held, key != busVariable })
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if err == nil {
			return
		}
		if strings.Contains(err.Error(), held) && !bytes.Contains(data, []byte(held)) {
			t.Errorf("what the environment holds shows in %v", err)
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.Contains(line, name+":") && !strings.Contains(line, "start_time_in_utc") {
				t.Errorf("no place in %q", line)
			}
		}
	})
}
