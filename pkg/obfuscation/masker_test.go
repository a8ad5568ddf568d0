package obfuscation

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// readRules reads a case's rules, which are written as in a configuration file.
func readRules(t testing.TB, path string) []Rule {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written []struct {
		Name     []string
		Value    any
		Patterns []string `json:"string_patterns"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&written); err != nil {
		t.Fatal(err)
	}
	var rules []Rule
	for _, w := range written {
		r := Rule{Path: w.Name, Value: w.Value}
		if n, ok := w.Value.(json.Number); ok {
			f, _ := n.Float64()
			if r.Value = f; !strings.ContainsAny(n.String(), ".eE") {
				r.Value = int(f)
			}
		}
		for _, p := range w.Patterns {
			r.Patterns = append(r.Patterns, regexp.MustCompile(p))
		}
		rules = append(rules, r)
	}
	return rules
}

func masker(t testing.TB, rules ...Rule) *Masker {
	t.Helper()
	m, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func masked(t testing.TB, m *Masker, row string) string {
	t.Helper()
	out, err := m.Append(nil, []byte(row))
	if err != nil {
		t.Fatalf("%s: %v", row, err)
	}
	return string(out)
}

// TestCases masks testdata/cases/*.row by the rules beside it; the golden file holds what comes out.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.row")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".row")
		t.Run(filepath.Base(name), func(t *testing.T) {
			row, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rules := readRules(t, name+".rules.json")
			got := masked(t, masker(t, rules...), string(row))
			if *update {
				if err := os.WriteFile(name+".golden", []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("row  %s\ngot  %s\nwant %s", row, got, want)
			}
			if !json.Valid([]byte(got)) {
				t.Error("no valid JSON")
			}
		})
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	m := masker(t, Rule{Path: []string{"a"}})
	dst := append(make([]byte, 0, 100), "before "...)
	row := []byte(`{"a":1}`)
	out, err := m.Append(dst, row)
	if err != nil || string(out) != `before {"a":-1}` || string(row) != `{"a":1}` {
		t.Errorf("%s, %v, row %s", out, err, row)
	}
	out, err = m.Append(dst, []byte(`{"a":"secret"`))
	if err == nil || string(out) != "before " {
		t.Errorf("%s, %v", out, err)
	}
	// What was written behind dst's end is not returned, and holds no value either.
	if spare := out[:cap(out)]; bytes.Contains(spare, []byte("secret")) {
		t.Errorf("spare %s", spare)
	}
}

func TestRefusesWhatItCannotBeSureOf(t *testing.T) {
	m := masker(t, Rule{Path: []string{"secret"}}, Rule{Path: []string{"deep", "*"}})
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, bad := range []string{
		"", " ", "{", "[", `{"secret":"hidden"`, `{"secret":"hidden}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a" 1}`, `{1:2}`, `{,}`, `[,]`,
		`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":-}`, `{"a":1e}`, `{"a":+1}`, `{"a":nul}`, `{"a":True}`, `{"a":NaN}`,
		`{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\u12`, `{"a":"\`, `{"a":1}}`, `{"a":1} x`, `{"a":1}{"secret":"hidden"}`,
		`{"deep":{"x":[1}]}`, `{"deep":[{]}`, `{"deep":{"x"}}`, "\x00", "\xef\xbb\xbf{}", deep(maxDepth + 1), `{"deep":` + deep(maxDepth) + `}`, `{"secret":` + deep(maxDepth) + `}`,
	} {
		out, err := m.Append(nil, []byte(bad))
		if err == nil || out != nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%.80s: %.80s, %v", bad, out, err)
		}
	}
	for c := range 0x20 {
		for at := range 9 { // texts are read eight bytes at a time
			bad := `{"a":"` + strings.Repeat("x", at) + string(rune(c)) + `yyyyyyyyy"}`
			if out, err := m.Append(nil, []byte(bad)); err == nil {
				t.Errorf("%q became %q", bad, out)
			}
		}
	}
	for _, good := range []string{deep(maxDepth), `{"deep":` + deep(maxDepth-1) + `}`, `{"secret":` + deep(maxDepth-1) + `}`} {
		if got := masked(t, m, good); got != good {
			t.Errorf("%.80s became %.80s", good, got)
		}
	}
	if n := m.Rows(); n != 3 {
		t.Errorf("%d rows counted", n)
	}
}

func TestSizeIsBounded(t *testing.T) {
	m := masker(t, Rule{Path: []string{"*"}})
	row := "[" + strings.Repeat(`"",`, maxSize/20) + `""]`
	if out, err := m.Append(nil, []byte(row)); err != errSize || out != nil {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Rule{Path: []string{"a"}}
	for want, rules := range map[string][]Rule{
		"no rules":      nil,
		"[1].name: an":  {good, {}},
		"[0].value: Na": {{Path: []string{"a"}, Value: math.NaN()}},
		"[0].value: +I": {{Path: []string{"a"}, Value: math.Inf(1)}},
		"[0].value: a ": {{Path: []string{"a"}, Value: []any{1}}},
	} {
		if _, err := New(rules); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}

func TestCounts(t *testing.T) {
	m := masker(t,
		Rule{Path: []string{"a", "*"}}, Rule{Path: []string{"a", "x"}, Value: 5}, Rule{Path: []string{"typo"}},
		Rule{Path: []string{"d"}, Patterns: []*regexp.Regexp{regexp.MustCompile("b"), regexp.MustCompile("c")}},
		Rule{Path: []string{"s", "k"}})
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() { masked(t, m, `{"a":{"x":"1","y":2,"z":null},"d":"abc","s":"t"}`) })
	}
	group.Wait()
	want := []Count{{"a.*", 20, 0}, {"a.x", 10, 10}, {"typo", 0, 0}, {"d", 10, 0}, {"s.k", 10, 10}}
	if got := m.Counts(); !reflect.DeepEqual(got, want) || m.Rows() != 10 {
		t.Errorf("%+v in %d rows", got, m.Rows())
	}
}

func TestReaches(t *testing.T) {
	for rule, want := range map[string]bool{
		"id": true, "*": true, "id.x": true, "properties": false, "*.x": false, "name": false,
		"properties.startTimeUtc": false, "ID": false,
	} {
		m := masker(t, Rule{Path: strings.Split(rule, ".")})
		if got := m.Reaches("id"); got != want {
			t.Errorf("%s reaches id: %v", rule, got)
		}
		// What it says is what happens to a text that stands there.
		if changed := masked(t, m, `{"id":"v"}`) != `{"id":"v"}`; changed != want {
			t.Errorf("%s masks id: %v", rule, changed)
		}
	}
	for rule, want := range map[string]bool{
		"properties": true, "properties.startTimeUtc": true, "properties.*": true, "*.startTimeUtc": true, "*": true,
		"properties.endTimeUtc": false, "startTimeUtc": false, "properties.*.x": false, "properties.startTimeUtc.x": true,
	} {
		if got := masker(t, Rule{Path: strings.Split(rule, ".")}).Reaches("properties", "startTimeUtc"); got != want {
			t.Errorf("%s reaches properties.startTimeUtc: %v", rule, got)
		}
	}
}

// BenchmarkTwoPaths is an alert of 1.5 KB under two rules.
func BenchmarkTwoPaths(b *testing.B) {
	row, err := os.ReadFile("testdata/alert.json")
	if err != nil {
		b.Fatal(err)
	}
	m := masker(b, Rule{Path: []string{"properties", "azureResourceId"}}, Rule{Path: []string{"properties", "extendedProperties", "SourceDeviceAddress"}})
	var buf []byte
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = m.Append(buf[:0], row); err != nil {
			b.Fatal(err)
		}
	}
	if bytes.Equal(buf, row) {
		b.Fatal("nothing was masked")
	}
}
