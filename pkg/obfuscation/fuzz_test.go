package obfuscation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// FuzzAppend holds the scanner against encoding/json: both take the same documents for JSON, what comes out has
// the same keys and places, and no value under a rule is left.
func FuzzAppend(f *testing.F) {
	rows, _ := filepath.Glob("testdata/cases/*.row")
	for _, file := range rows {
		row, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(row, "properties", "*", "k")
	}
	f.Add([]byte(strings.Repeat("[", 300)), "*", "0", "")
	f.Add([]byte(`{"a":{"b":[1,"x",{"c":1e5}]}`), "a", "b", "c")
	f.Fuzz(func(t *testing.T, row []byte, one, two, three string) {
		rules := []Rule{{Path: []string{one, two}}, {Path: []string{three}}, {Path: []string{two}, Patterns: []*regexp.Regexp{regexp.MustCompile("[a-f]+")}}}
		m := masker(t, rules...)
		out, err := m.Append(nil, row)
		if (err == nil) != json.Valid(row) {
			t.Fatalf("error %v, valid: %v", err, json.Valid(row))
		}
		if err != nil {
			return
		}
		before, after := scalars(parse(t, row)), scalars(parse(t, out))
		hit, partly := map[string]bool{}, map[string]bool{}
		for i, r := range rules {
			under(parse(t, row), r.Path, true, "", func(place, _ string) {
				hit[place] = hit[place] || i < 2
				partly[place] = true
			})
		}
		allowed := standsFor(nil)
		for place, was := range before {
			switch is, ok := after[place]; {
			case !ok, hit[place] && !allowed[is], !partly[place] && was != is:
				t.Fatalf("%s: %s became %s", place, was, is)
			}
		}
		if len(before) != len(after) {
			t.Fatalf("%d values, %d before", len(after), len(before))
		}
	})
}
