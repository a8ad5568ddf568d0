package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defenderiot/pkg/fault"
)

// only one of the names matches.
func theFile(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found[0]
}

// Each folder of testdata/server holds the two files, what is said of them, and, if they are valid, the one
// file that means the same.
func TestServerFiles(t *testing.T) {
	folders, err := filepath.Glob("testdata/server/*")
	if err != nil || len(folders) < 5 {
		t.Fatal(folders, err)
	}
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c, warnings, err := Load(Options{
				Job: theFile(t, dir+"/job.*"), Collector: theFile(t, dir+"/collector.*"), Path: "not read", Environ: environment,
			})
			said := warningLines(warnings)
			if err != nil {
				said += errorLines(err)
			}
			golden(t, dir+"/said.txt", said)
			if err != nil {
				return
			}
			noSecret(t, c)
			data, err := os.ReadFile(dir + "/same.yaml")
			if err != nil {
				t.Fatal(err)
			}
			same, _, err := parseNow(dir+"/same.yaml", data)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := printed(t, c), printed(t, same); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if c.Inputs[InputName].Credentials.ClientSecret.Reveal() != same.Inputs[InputName].Credentials.ClientSecret.Reveal() {
				t.Error("another secret")
			}
		})
	}
}

func printed(t *testing.T, c *Config) string {
	t.Helper()
	text, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhichFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	put := func(name, from string) string {
		t.Helper()
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	single := put("config.yaml", "testdata/valid/minimal.yaml")
	job := put("both/job/job_config.json", "testdata/server/template/job.json")
	collector := put("both/collector/collector_config.json", "testdata/server/template/collector.json")
	put("one/job/job_config.json", "testdata/server/template/job.json")
	for name, tc := range map[string]struct {
		o    Options
		name string // globals.name
		code int
		find []string
	}{
		"neither default":         {Options{Path: single, serverDir: dir}, "minimal", 0, []string{single}},
		"one default only":        {Options{Path: single, serverDir: dir + "/one"}, "minimal", 0, []string{single}},
		"both defaults":           {Options{Path: single, serverDir: dir + "/both"}, "defender_for_iot", 0, []string{collector, job}},
		"both named":              {Options{Path: single, serverDir: dir, Job: job, Collector: collector}, "defender_for_iot", 0, []string{collector, job}},
		"one named, one default":  {Options{serverDir: dir + "/one", Collector: collector}, "defender_for_iot", 0, []string{collector, dir + "/one/job/job_config.json"}},
		"no job file":             {Options{Path: single, serverDir: dir, Job: dir + "/none", Collector: collector}, "", codeJobMissing, nil},
		"no collector file":       {Options{Path: single, serverDir: dir, Job: job, Collector: dir + "/none"}, "", codeCollectorAbsent, nil},
		"job is a folder":         {Options{Path: single, serverDir: dir, Job: dir, Collector: collector}, "", codeJobFolder, nil},
		"collector is a folder":   {Options{Path: single, serverDir: dir, Job: job, Collector: dir}, "", codeCollectorFolder, nil},
		"a job without collector": {Options{Path: single, serverDir: dir, Job: job}, "", codeCollectorAbsent, nil},
		"a collector without job": {Options{Path: single, serverDir: dir, Collector: collector}, "", codeJobMissing, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.Environ = environment
			c, _, err := Load(tc.o)
			if tc.name == "" {
				e, ok := errors.AsType[*fault.Error](err)
				if !ok || e.Type != fault.TypeConfiguration || e.Code != tc.code || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want code %d alone", err, tc.code)
				}
				return
			}
			if err != nil || c.Globals.Name != tc.name {
				t.Fatalf("got %v, %v", c, err)
			}
			if found := Find(tc.o); strings.Join(found, " ") != strings.Join(tc.find, " ") {
				t.Errorf("found %v", found)
			}
			if c.File() != strings.Join(tc.find, " and ") {
				t.Errorf("file %s", c.File())
			}
		})
	}
}
