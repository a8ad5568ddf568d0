package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defenderiot/pkg/fault"
)

// inFolder writes files into a folder and loads the configuration there.
func inFolder(t *testing.T, dir, clientSecret, environment string, env map[string]string) (*Config, error) {
	t.Helper()
	text, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"config.yaml": strings.Replace(string(text), "s3cr3t-value", clientSecret, 1)}
	if environment != "" {
		files[EnvironmentFile] = environment
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := Load(Options{Workdir: dir, Environ: func(name string) (string, bool) { text, ok := env[name]; return text, ok }})
	return c, err
}

func TestEnvironmentFile(t *testing.T) {
	for line, want := range map[string]string{
		"S=plain": "plain", "export S=plain": "plain", "S = spaced ": "spaced", `S="a # b"`: "a # b", "S='a b'": "a b",
		"S=a # comment": "a", "S=a#b": "a#b", "# S=no\n\nS=yes\r": "yes", "S=a=b": "a=b", "S=first\nS=last": "last", "OTHER=x": "from the process",
	} {
		c, err := inFolder(t, t.TempDir(), `"${S}"`, line+"\n", map[string]string{"S": "from the process"})
		if err != nil {
			t.Errorf("%q: %v", line, err)
		} else if got := c.Inputs[InputName].Credentials.ClientSecret.Reveal(); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	for line, want := range map[string]string{"S=x\nhunter2": ":2: the line is not NAME=value", "1S=hunter2": ":1: the line is not NAME=value"} {
		_, err := inFolder(t, t.TempDir(), `"${S}"`, line, nil)
		var named *fault.Error
		if !errors.As(err, &named) || named.Type != fault.TypeConfiguration || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || named.Hint == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if _, err := inFolder(t, t.TempDir(), "x", "", map[string]string{"ENV_FILE": "none.env"}); err == nil || !strings.Contains(err.Error(), "none.env") {
		t.Errorf("a named file that is not there: %v", err)
	}
	other := filepath.Join(t.TempDir(), "my.env")
	if err := os.WriteFile(other, []byte("S=elsewhere"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := inFolder(t, t.TempDir(), `"${S}"`, "S=here", map[string]string{"ENV_FILE": other})
	if err != nil || c.Inputs[InputName].Credentials.ClientSecret.Reveal() != "elsewhere" {
		t.Errorf("a named file: %v", err)
	}
}

func TestSecretIsReadAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write := func(text string) {
		t.Helper()
		for path, content := range map[string]string{file: text + "\n", filepath.Join(dir, EnvironmentFile): "S=" + text + "\n"} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for written, prefix := range map[string]string{"file://" + file: "", `"${S}"`: "", `"pre-${S}"`: "pre-"} {
		if err := os.WriteFile(file, []byte("one\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := inFolder(t, dir, written, "S=one", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := c.Inputs[InputName].Credentials.ClientSecret
		write("two")
		if now, err := s.Latest(); err != nil || now.Reveal() != prefix+"two" || s.Reveal() != prefix+"one" {
			t.Errorf("%s: %v, %q after %q", written, err, now.Reveal(), s.Reveal())
		}
		if write(""); prefix != "" {
			continue // which is not empty
		}
		if now, err := s.Latest(); err == nil || now.Reveal() != "one" {
			t.Errorf("%s: %v, %q", written, err, now.Reveal())
		}
	}
	c, err := inFolder(t, dir, "written-here", "S=one", nil)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := c.Inputs[InputName].Credentials.ClientSecret.Latest(); err != nil || now.Reveal() != "written-here" {
		t.Errorf("%v, %q", err, now.Reveal())
	}
}

func TestDefaultChain(t *testing.T) {
	text, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(text), "    credentials:")
	j := strings.Index(string(text), "    services:")
	if i < 0 || j < i {
		t.Fatalf("another form of file: %s", text)
	}
	for _, credentials := range []string{"", "    credentials: {}\n", "    credentials:\n", "    credentials: {tenant_id: contoso.com}\n"} {
		c, warnings, err := parseNow("x.yaml", []byte(string(text[:i])+credentials+string(text[j:])))
		if err != nil || len(warnings) > 0 {
			t.Errorf("%q: %v %v", credentials, warnings, err)
		} else if kind := c.Inputs[InputName].Credentials.Kind(); kind != CredentialDefault {
			t.Errorf("%q: %s", credentials, kind)
		}
	}
}
