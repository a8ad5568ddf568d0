package resourcegraph

import (
	"strings"
	"testing"

	"defenderiot/pkg/secret"
)

func FuzzCleaner(f *testing.F) {
	f.Add("before ", " after")
	f.Add("client_secret=", "&x=1")
	f.Add(strings.Repeat(" ", window-5), "")
	f.Add("\"client_secret\":\"", "\"")
	c := newCleaner(secret.New(testSecret))
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, form := range c.forms() {
			got := c.text(before + form.Reveal() + after)
			if strings.Contains(got, "s3cr3t") && !strings.Contains(before+after, "s3cr3t") {
				t.Fatalf("%q", got)
			}
			if len(got) > maxExcerpt+len("…") || strings.ContainsAny(got, "\r\n\t\x00") {
				t.Fatalf("%q", got)
			}
		}
	})
}

func TestTokensAreRemoved(t *testing.T) {
	c := newCleaner()
	for _, in := range []string{
		"got eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl here",
		"Authorization: Bearer abcdefSECRETghij",
		`{"access_token":"abcdefSECRETghij"}`,
		"client_secret=abcdefSECRETghij&grant_type=x",
	} {
		if got := c.text(in); strings.Contains(got, "SECRET") || strings.Contains(got, "c2lnbmF0dXJl") || !strings.Contains(got, "<secret>") {
			t.Errorf("%q became %q", in, got)
		}
	}
}
