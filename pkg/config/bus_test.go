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

// The variables beside BUS_URL count with it alone, and only for what the file does not say.
func TestBusVariables(t *testing.T) {
	minimal, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"BUS_URL": "tls://nats:4222", "BUS_USER": "sender", "BUS_PASSWORD": "file://" + file, "BUS_REPLICAS": "3", "BUS_CA": "/run/secrets/ca",
	}
	parse := func(section string, variables map[string]string) (*Config, error) {
		c, _, err := Parse("config.yaml", []byte(string(minimal)+"\n"+section+"\n"), func(key string) (string, bool) {
			text, ok := variables[key]
			return text, ok
		})
		return c, err
	}
	c, err := parse("", all)
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Bus; b.User != "sender" || b.Password.Reveal() != "from a file" || b.Replicas != 3 || b.TLS == nil || b.TLS.CA != "/run/secrets/ca" {
		t.Errorf("from the environment: %+v", b)
	}
	if err := os.WriteFile(file, []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if latest, err := c.Bus.Password.Latest(); err != nil || latest.Reveal() != "another" {
		t.Errorf("the replaced password: %v, %v", latest, err)
	}
	if c, err = parse("bus: {user: own, password: given, replicas: 1, tls: {ca: own.crt}}", all); err != nil {
		t.Fatal(err)
	}
	if b := c.Bus; b.User != "own" || b.Password.Reveal() != "given" || b.Replicas != 1 || b.TLS.CA != "own.crt" {
		t.Errorf("the file does not win: %+v", b)
	}
	if c, err = parse("bus: {url: \"nats://other:4222\"}", all); err != nil {
		t.Fatal(err)
	}
	if b := c.Bus; b.User != "" || !b.Password.IsZero() || b.TLS != nil {
		t.Errorf("another server gets what is for the variable's: %+v", b)
	}
	all["BUS_REPLICAS"], all["BUS_PASSWORD"] = "2", "hidden"
	if _, err = parse("", all); err == nil || !strings.Contains(err.Error(), "bus.replicas") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a wrong number: %v", err)
	}
}
