// Package secret holds values that must never be seen: passwords, client secrets, tokens.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// mask stands wherever a secret would be printed.
const mask = "<secret>"

// String is a text that prints as <secret> under every fmt verb and in every marshaller (text, JSON,
// YAML, slog). Only [String.Reveal] gives the text. The zero value is the empty secret, which prints
// as an empty text so that "not set" can be told from "set". It is safe for concurrent use.
//
// Two secrets must not be compared with ==.
type String struct {
	// A pointer, because fmt calls no method on what lies in another struct's unexported field: it would
	// print a string, but of a pointer inside a struct it prints the address only.
	text *string
	// again reads the text anew; nil for a secret that cannot change. A pointer for the same reason.
	again *func() (string, error)
}

// New wraps text.
func New(text string) String { return String{text: &text} }

// Reveal returns the text; call it only where the text leaves for its purpose.
func (s String) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty.
func (s String) IsZero() bool { return s.Reveal() == "" }

// String returns the mask, or "" for the empty secret.
func (s String) String() string {
	if s.IsZero() {
		return ""
	}
	return mask
}

// Format writes the mask under every verb, %#v and %x among them.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString returns the mask.
func (s String) GoString() string { return s.String() }

// LogValue returns the mask.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the mask; JSON and most other encoders use it.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns the mask.
func (s String) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalText takes the text as it stands.
func (s *String) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
