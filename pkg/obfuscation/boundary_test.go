package obfuscation

import (
	"regexp"
	"strings"
	"testing"
)

// Words are found beyond ASCII, as by the regular expressions that people's patterns come from. Every case was tried
// with Python's re on str, but for that of an anchor in the wrong place.
func TestWordsBeyondASCII(t *testing.T) {
	for name, tt := range map[string]struct{ pattern, text, want string }{
		"a name that ends beyond":       {`\bJosé\b`, "by José now", "by # now"},
		"at the end":                    {`\bJosé\b`, "by José", "by #"},
		"at the beginning":              {`\bélan\b`, "élan vital", "# vital"},
		"within another word":           {`\bé\b`, "café é", "café #"},
		"a longer word stays":           {`\bJosé\b`, "Joséphine", "Joséphine"},
		"no boundary":                   {`\Bé\B`, "aéa é", "a#a é"},
		"a group":                       {`user=\b(\w+)\b`, "user=Žofie, user=bob", "user=#, user=#"},
		"beside a class":                {`\b[a-zé]+\b`, "été ÉTÉ", "# ÉTÉ"},
		"any character":                 {`\b.\b`, "é ab", "#ab"},
		"neither case":                  {`(?i)\bÉTÉ\b`, "l'été", "l'#"},
		"repeated":                      {`\b(?:é|x){2,3}\b`, "éxé éé é", "# # é"},
		"twice the same":                {`\b\bé\b\b`, "é", "#"},
		"to the end of the text":        {`\bé$`, "aé é", "aé #"},
		"from the beginning":            {`^\bé`, "éa é", "#a é"},
		"by line":                       {`(?m)^\bé$`, "é\né", "#\n#"},
		"alternatives":                  {`\bé\b|ü`, "é aü éa", "# a# éa"},
		"Greek":                         {`\bλόγος\b`, "ὁ λόγος.", "ὁ #."},
		"not as ASCII sees it":          {`\bcat\b`, "écat", "écat"},
		"asked within and without":      {`\b(?:\bé\b|\bü\b)\b`, "é ü", "# #"},
		"an anchor in the wrong place":  {`cat$\b`, "é cat", "é #"},
		"only ASCII":                    {`\bcat\b`, "cat concat", "# concat"},
		"a negated class, and no marks": {`\b[^x]\b`, "é", "#"},
		"a mark in the text":            {`\bé\b`, "\uFDD0é\uFDD1", "\uFDD0#\uFDD1"},
	} {
		m, err := New([]Rule{{Path: []string{"s"}, Value: "#", Patterns: []*regexp.Regexp{regexp.MustCompile(tt.pattern)}}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		escape := strings.NewReplacer("\n", `\n`).Replace
		got, err := m.Append(nil, []byte(`{"s":"`+escape(tt.text)+`"}`))
		if want := `{"s":"` + escape(tt.want) + `"}`; err != nil || string(got) != want {
			t.Errorf("%s: %s on %q: got %s, want %s (%v)", name, tt.pattern, tt.text, got, want, err)
		}
	}
}

// What a text stands for decides, not how it is written.
func TestWordsBehindEscapes(t *testing.T) {
	m, err := New([]Rule{{Path: []string{"s"}, Value: "#", Patterns: []*regexp.Regexp{regexp.MustCompile(`\bJosé\b`)}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Append(nil, []byte(`{"s":"by\tJos\u00e9 \u00e9"}`))
	if want := `{"s":"by\t# \u00e9"}`; err != nil || string(got) != want {
		t.Errorf("got %s, want %s (%v)", got, want, err)
	}
}
