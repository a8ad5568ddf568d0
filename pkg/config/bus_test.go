package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defenderiot/pkg/fault"
)

func TestBusVariable(t *testing.T) {
	minimal, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const other = "nats://other:4222"
	for name, tc := range map[string]struct{ section, variable, want string }{
		"neither":                {"", "", ""},
		"variable alone":         {"", "nats://nats:4222", "nats://nats:4222"},
		"the file wins":          {"bus: {url: \"" + other + "\"}", "nats://nats:4222", other},
		"beside other keys":      {"bus: {user: a, password: b, replicas: 3}", "nats://nats:4222", "nats://nats:4222"},
		"an empty section":       {"bus:", "nats://nats:4222", "nats://nats:4222"},
		"an empty key":           {"bus: {url: }", "nats://nats:4222", "nats://nats:4222"},
		"several, by commas":     {"", "nats://a:4222,nats://b:4222", "nats://a:4222,nats://b:4222"},
		"an empty one is absent": {"bus: {replicas: 1}", "", ""},
	} {
		c, warnings, err := Parse("config.yaml", []byte(string(minimal)+"\n"+tc.section+"\n"), func(key string) (string, bool) {
			return tc.variable, key == busVariable
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Bus.URL != tc.want || c.Bus.IsEmbedded() != (tc.want == "") {
			t.Errorf("%s: got %q, want %q", name, c.Bus.URL, tc.want)
		}
		for _, w := range warnings {
			if strings.HasPrefix(w.Key, "bus") {
				t.Errorf("%s: warned of %s", name, w)
			}
		}
	}
	_, _, err = Parse("config.yaml", minimal, func(key string) (string, bool) { return "http://nats:4222", key == busVariable })
	if e, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(e.Reason, "bus.url") || !strings.Contains(e.Reason, "'$BUS_URL'") {
		t.Errorf("a wrong variable: %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	o := Options{Workdir: dir, Environ: func(string) (string, bool) { return "", false }}
	if got := Find(o); got != nil {
		t.Errorf("found %s in an empty folder", got)
	}
	for _, name := range []string{"config.yaml", "config/config.yaml"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Find(o); len(got) != 1 || got[0] != path {
			t.Errorf("found %s, want %s", got, path)
		}
	}
}

// Who lacks a file or may not read it is told what to do.
func TestFileHints(t *testing.T) {
	dir := t.TempDir()
	o := Options{Workdir: dir, Environ: func(string) (string, bool) { return "", false }}
	_, _, err := Load(o)
	if hint := fault.Hint(err); !strings.Contains(hint, "put your configuration there") {
		t.Errorf("no file: hint %q", hint)
	}
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err = Load(o); !strings.HasPrefix(fault.Hint(err), "chown ") {
		t.Errorf("an unreadable file: hint %q", fault.Hint(err))
	}
}
