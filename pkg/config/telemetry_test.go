package config

import (
	"os"
	"strings"
	"testing"
)

// $TELEMETRY_LISTEN counts only for a file that names no address, and is checked like the key.
func TestListenVariable(t *testing.T) {
	minimal, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(section, listen string) (*Config, error) {
		c, _, err := Parse("config.yaml", []byte(string(minimal)+"\n"+section+"\n"), func(key string) (string, bool) {
			return listen, key == "TELEMETRY_LISTEN"
		})
		return c, err
	}
	for _, c := range []struct{ section, listen, want string }{
		{"", "", "127.0.0.1:8080"},
		{"", "0.0.0.0:8080", "0.0.0.0:8080"},
		{"telemetry:", "0.0.0.0:8080", "0.0.0.0:8080"},
		{"telemetry: {log_format: json}", "0.0.0.0:8080", "0.0.0.0:8080"},
		{"telemetry: {listen: '127.0.0.1:9000'}", "0.0.0.0:8080", "127.0.0.1:9000"},
	} {
		got, err := parse(c.section, c.listen)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
		} else if got.Telemetry.Listen != c.want {
			t.Errorf("%+v: listens on %q", c, got.Telemetry.Listen)
		}
	}
	if _, err := parse("", "no address"); err == nil || !strings.Contains(err.Error(), "telemetry.listen") || !strings.Contains(err.Error(), "TELEMETRY_LISTEN") {
		t.Errorf("a wrong address: %v", err)
	}
}
