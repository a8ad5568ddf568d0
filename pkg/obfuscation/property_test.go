package obfuscation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var keys = []string{"a", "b", "c", "0", "1", "*", "", "é", "a b", `q"\/`, "\U0001F600"}

// spell writes a key or text in one of the ways that JSON has for it.
func spell(t *rapid.T, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case rapid.IntRange(0, 5).Draw(t, "escape") == 0 && r < 0x10000:
			fmt.Fprintf(&b, `\u%04X`, r)
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '/' && rapid.Bool().Draw(t, "solidus"):
			b.WriteString(`\/`)
		case r < 0x20:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r >= 0x10000 && rapid.Bool().Draw(t, "pair"):
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// document draws JSON text: nested, with repeated and escaped keys and white space anywhere.
func document(t *rapid.T, depth int) string {
	pad := func() string { return rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r\n"}).Draw(t, "space") }
	shape := rapid.IntRange(0, 9).Draw(t, "shape")
	var parts []string
	switch {
	case depth == 0 || shape < 4:
		if shape%2 == 0 {
			return pad() + spell(t, rapid.StringOf(rapid.RuneFrom([]rune("abx01 \"\\/é\n\U0001F600"))).Draw(t, "text")) + pad()
		}
		return pad() + rapid.SampledFrom([]string{"null", "true", "false", "0", "-0", "17", "1.0", "-1.5e+3", "2E0", "9007199254740993", `"\ud800"`, "\"\xff\""}).Draw(t, "scalar") + pad()
	case shape < 8:
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			parts = append(parts, pad()+spell(t, rapid.SampledFrom(keys).Draw(t, "key"))+pad()+":"+document(t, depth-1))
		}
		return pad() + "{" + strings.Join(parts, ",") + pad() + "}" + pad()
	default:
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			parts = append(parts, document(t, depth-1))
		}
		return pad() + "[" + strings.Join(parts, ",") + pad() + "]" + pad()
	}
}

func drawRules(t *rapid.T, patterns bool) []Rule {
	segment := rapid.SampledFrom(append([]string{"-1", "x"}, keys...))
	value := rapid.SampledFrom([]any{nil, nil, "DEVO", `<"é\`, "", 7, 0, 2.5, 0.0, true, false})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Rule {
		r := Rule{Path: rapid.SliceOfN(segment, 1, 4).Draw(t, "path"), Value: value.Draw(t, "value")}
		if patterns {
			r.Patterns = []*regexp.Regexp{regexp.MustCompile(rapid.SampledFrom([]string{"[ab]+", "b", "x(0|1)", "é.", "1", ".", "", "(?:a|(b))x"}).Draw(t, "pattern"))}
		}
		return r
	}), 1, 4).Draw(t, "rules")
}

// standsFor are the texts that may stand in the place of a masked scalar.
func standsFor(rules []Rule) map[string]bool {
	allowed := map[string]bool{"null": true, strconv.Quote("****SANITIZED****"): true, "-1": true, "-1.0": true, "false": true}
	for _, r := range rules {
		switch v := r.Value.(type) {
		case string:
			allowed[strconv.Quote(v)] = true
		case float64:
			allowed[strconv.FormatFloat(v, 'f', 1, 64)] = true
		case nil:
		default:
			allowed[fmt.Sprint(v)] = true
		}
	}
	return allowed
}

func TestNoValueUnderARuleLeaves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := []byte(document(t, 4))
		rules := drawRules(t, false)
		m, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.Append(nil, row)
		if err != nil {
			t.Fatalf("%s: %v", row, err)
		}
		before := scalars(parse(t, row))
		after := scalars(parse(t, out))
		hit := map[string]bool{}
		for _, r := range rules {
			under(parse(t, row), r.Path, true, "", func(place, _ string) { hit[place] = true })
		}
		allowed := standsFor(rules)
		if len(before) != len(after) {
			t.Fatalf("%s has other places than %s", out, row)
		}
		for place, was := range before {
			is, ok := after[place]
			switch {
			case !ok:
				t.Fatalf("%s is gone in %s", place, out)
			case hit[place] && !allowed[is]:
				t.Fatalf("%s: %s, under a rule, became %s\n%s\n%s", place, was, is, row, out)
			case hit[place] && was != "null" && kindOf(was) != kindOf(is):
				t.Fatalf("%s: %s became %s", place, was, is)
			case !hit[place] && was != is:
				t.Fatalf("%s: %s, under no rule, became %s\n%s\n%s", place, was, is, row, out)
			}
		}
		sameBesides(t, row, out, hit)
		again, err := m.Append(nil, out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("applied twice: %s, %v, once: %s", again, err, out)
		}
	})
}

// TestNoMatchLeaves is the same for rules with patterns. What is expected is made of the decoded texts, where
// each byte that a pattern matches is marked.
func TestNoMatchLeaves(t *testing.T) {
	const mask = "****SANITIZED****"
	rapid.Check(t, func(t *rapid.T) {
		row := []byte(document(t, 4))
		rules := drawRules(t, true)
		for i := range rules {
			rules[i].Value = nil
		}
		m, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.Append(nil, row)
		if err != nil {
			t.Fatalf("%s: %v", row, err)
		}
		want := scalars(parse(t, row))
		marks := map[string][]bool{}
		hit := map[string]bool{}
		for _, r := range rules {
			pattern := r.Patterns[0]
			under(parse(t, row), r.Path, true, "", func(place, raw string) {
				switch {
				case raw == "null":
				case raw[0] == '"':
					s, _ := strconv.Unquote(raw)
					if marks[place] == nil {
						marks[place] = make([]bool, len(s))
					}
					for _, found := range pattern.FindAllStringSubmatchIndex(s, -1) {
						from, to := found[0], found[1]
						if len(found) > 2 && found[2] >= 0 {
							from, to = found[2], found[3]
						}
						for i := from; i < to; i++ {
							marks[place][i], hit[place] = true, true
						}
					}
				case pattern.MatchString(raw) || strings.ContainsAny(raw, "eE") && kindOf(raw) == "float":
					hit[place] = true
					want[place] = map[string]string{"integer": "-1", "float": "-1.0", "boolean": "false"}[kindOf(raw)]
				}
			})
		}
		for place, marked := range marks {
			s, _ := strconv.Unquote(want[place])
			var b strings.Builder
			for i := range len(s) {
				switch {
				case !marked[i]:
					b.WriteByte(s[i])
				case i == 0 || !marked[i-1]:
					b.WriteString(mask)
				}
			}
			want[place] = strconv.Quote(b.String())
		}
		got := scalars(parse(t, out))
		for place := range want {
			if got[place] != want[place] {
				t.Fatalf("%s: %s, want %s\n%s\n%s", place, got[place], want[place], row, out)
			}
		}
		sameBesides(t, row, out, hit)
		if again, err := m.Append(nil, out); err != nil || !json.Valid(again) {
			t.Fatalf("applied twice: %s, %v", again, err)
		}
	})
}

// cut splits a document at its scalars: what lies between, byte for byte, and the scalars in their order.
// Keys lie between.
func cut(t *rapid.T, data []byte) (between, values []string) {
	var stack []byte
	key, last := false, 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '{', '[':
			stack, key = append(stack, c), c == '{'
		case '}', ']':
			stack = stack[:len(stack)-1]
			key = false
		case ',':
			key = len(stack) > 0 && stack[len(stack)-1] == '{'
		case ' ', '\n', '\t', '\r':
		case ':':
			key = false
		default:
			end := i + 1
			if c == '"' {
				for ; data[end] != '"'; end++ {
					if data[end] == '\\' {
						end++
					}
				}
				end++
			} else {
				for end < len(data) && !strings.ContainsRune(" \n\t\r,]}", rune(data[end])) {
					end++
				}
			}
			if !key {
				between = append(between, string(data[last:i]))
				values = append(values, string(data[i:end]))
				last = end
			}
			i = end - 1
		}
	}
	return append(between, string(data[last:])), values
}

// sameBesides checks that out is row but for the scalars at the places hit.
func sameBesides(t *rapid.T, row, out []byte, hit map[string]bool) {
	between, values := cut(t, row)
	outBetween, outValues := cut(t, out)
	if fmt.Sprintf("%q", between) != fmt.Sprintf("%q", outBetween) || len(values) != len(outValues) {
		t.Fatalf("bytes between the values differ:\n%s\n%s", row, out)
	}
	n := 0
	var walk func(node, string)
	walk = func(x node, place string) {
		for i, m := range x.members {
			walk(m.value, fmt.Sprintf("%s/%d", place, i))
		}
		for i, e := range x.elements {
			walk(e, fmt.Sprintf("%s/%d", place, i))
		}
		if x.kind == 's' {
			if !hit[place] && values[n] != outValues[n] {
				t.Fatalf("%s: %s became %s", place, values[n], outValues[n])
			}
			n++
		}
	}
	walk(parse(t, row), "")
	if n != len(values) {
		t.Fatalf("%d scalars, cut found %d in %s", n, len(values), row)
	}
}
