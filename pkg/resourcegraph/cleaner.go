package resourcegraph

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"defenderiot/pkg/secret"
)

const (
	// maxExcerpt is how much of a foreign text an error quotes, in bytes.
	maxExcerpt = 512
	// window is how much of it is looked at, for white space leaves little to quote.
	window = 16 << 10
	// minSecret is the shortest secret that is looked for: removing every letter "a" would leave no error
	// readable, and Azure's secrets have forty characters.
	minSecret = 6
)

// cleaner makes foreign text fit for an error: one line, short, printable, without secrets.
type cleaner struct {
	known *known
}

// known are the secrets so far. They are never forgotten: an old one may still be good somewhere.
type known struct {
	mu    sync.Mutex
	forms []secret.String // as they may stand in a text, longest first
}

// tokens matches what looks like a bearer token, wherever it comes from: a signed JWT, or whatever
// follows the names under which tokens and secrets are sent.
var tokens = regexp.MustCompile(`(?i)eyJ[a-z0-9_-]{8,}(\.[a-z0-9_-]+){1,4}` +
	`|\bbearer\s+[a-z0-9._~+/=-]{8,}` +
	`|"?\b(access_token|refresh_token|id_token|client_secret|client_assertion|password)\b"?\s*[:=]\s*("[^"]*"?|[^\s&,}"]+)`)

// newCleaner knows the secrets themselves in the forms that an echoed request would have.
func newCleaner(secrets ...secret.String) cleaner {
	c := cleaner{&known{}}
	c.know(secrets...)
	return c
}

// know adds secrets. It is safe for concurrent use, as are the other methods.
func (c cleaner) know(secrets ...secret.String) {
	var forms []string
	for _, s := range secrets {
		if len(s.Reveal()) < minSecret {
			continue
		}
		plain := s.Reveal()
		quoted, _ := json.Marshal(plain)
		forms = append(forms, plain, url.QueryEscape(plain), url.PathEscape(plain), string(quoted[1:len(quoted)-1]))
	}
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	for _, f := range c.known.forms {
		forms = append(forms, f.Reveal())
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	all := make([]secret.String, 0, len(forms)) // a new one: others may be reading
	for _, f := range slices.Compact(forms) {
		all = append(all, secret.New(f))
	}
	c.known.forms = all
}

func (c cleaner) forms() []secret.String {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	return c.known.forms
}

// text removes secrets, then line breaks and what does not print, then the length above maxExcerpt.
func (c cleaner) text(s string) string {
	for _, f := range c.forms() { // before the cut, which could leave half a secret
		s = strings.ReplaceAll(s, f.Reveal(), "<secret>")
	}
	if len(s) > window {
		s = s[:window]
	}
	s = tokens.ReplaceAllString(s, "<secret>")
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxExcerpt {
		cut := maxExcerpt
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

func (c cleaner) excerpt(body []byte) string { return c.text(string(body)) }

// cleaned stands for an error whose own text may say too much. errors.Is sees through it; the text and
// the types behind it stay hidden.
type cleaned struct {
	text string
	is   error
}

func (e *cleaned) Error() string        { return e.text }
func (e *cleaned) Is(target error) bool { return errors.Is(e.is, target) }

func (c cleaner) error(err error) error {
	return &cleaned{text: strings.TrimRight(c.text(err.Error()), ". "), is: err}
}
