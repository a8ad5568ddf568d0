package collector_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestHouseRules keeps the layout easy to see: services import pkg and proto and never each other, except
// the collector, which assembles them; pkg never imports services; proto imports nothing of ours. Tests
// may also use the simulator. Files stay short.
func TestHouseRules(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		files++
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(name, "_test.go")
		if lines := bytes.Count(source, []byte("\n")); lines > 400 && !test {
			t.Errorf("%s has %d lines", name, lines)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imported, "defenderiot/"); ok && !allowed(name, ours, test) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

func allowed(file, imported string, test bool) bool {
	from, to := home(file), home(imported)
	switch {
	case from == to, to == "proto":
		return true
	case from == "proto":
		return false
	case to == "pkg":
		return true
	case from == "pkg":
		return false
	case from == "services/collector":
		return true
	}
	return test && to == "services/simulator"
}

// home is the module that a path lies in.
func home(path string) string {
	parts := strings.Split(path, "/")
	if parts[0] == "services" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}
