package telemetry

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// appendAttr appends ` key=value`, or one for each member of a group, whose keys are joined by dots.
// Empty attributes and groups vanish, as slog wants it, and so do [Fields].
func appendAttr(line []byte, prefix string, a slog.Attr) []byte {
	if isFields(a) {
		return line
	}
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return line
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range a.Value.Group() {
			line = appendAttr(line, prefix, member)
		}
		return line
	}
	line = append(line, ' ')
	line = appendQuoted(line, prefix+a.Key)
	line = append(line, '=')
	return appendQuoted(line, valueText(a.Value))
}

func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		return anyText(v.Any())
	default:
		return v.String()
	}
}

// anyText prints v as its type says. Structures go through JSON and not through fmt: fmt prints unexported
// fields without asking their type, and a secret held in one would show.
func anyText(v any) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = panicText(v, r)
		}
	}()
	switch v := v.(type) {
	case nil:
		return "<nil>"
	case error:
		return v.Error()
	case *url.URL:
		return v.Redacted() // String would show a password
	case encoding.TextMarshaler:
		if b, err := v.MarshalText(); err == nil {
			return string(b)
		}
	case fmt.Stringer:
		return v.String()
	case []byte:
		return string(v)
	}
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.String {
		return rv.String() // a named string type; JSON would add quotes
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprintf("<%T: %v>", v, err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// panicText stands for a value whose own method panicked; a nil pointer is the usual reason.
func panicText(v, r any) string {
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
		return "<nil>"
	}
	return fmt.Sprintf("<%T: panic: %v>", v, r)
}

// appendQuoted appends text as a key or a value: as it is if it reads back unambiguously, else as a Go string.
func appendQuoted(line []byte, text string) []byte {
	if text != "" && !strings.ContainsFunc(text, ambiguous) && utf8.ValidString(text) {
		return append(line, text...)
	}
	return strconv.AppendQuote(line, text)
}

func ambiguous(r rune) bool {
	return r == '"' || r == '=' || unicode.IsSpace(r) || !strconv.IsPrint(r)
}

// appendEscaped appends text with everything escaped that could break the line or drive a terminal; the
// rest, quotes and backslashes among it, stays as people know it.
func appendEscaped(line []byte, text string) []byte {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			line = fmt.Appendf(line, `\x%02x`, text[i])
		case strconv.IsGraphic(r):
			line = append(line, text[i:i+size]...)
		default:
			quoted := strconv.QuoteRune(r)
			line = append(line, quoted[1:len(quoted)-1]...)
		}
		i += size
	}
	return line
}
