package simulator

import (
	"fmt"
	"unicode/utf8"
)

// jsonWriter prints a JSON object member by member, in the order given, which
// encoding/json cannot do for generated keys.
type jsonWriter struct {
	b []byte
	// ascii prints other characters as \uXXXX, as some serializers do.
	ascii bool
}

func (w *jsonWriter) comma() {
	if n := len(w.b); n > 0 && w.b[n-1] != '{' && w.b[n-1] != '[' {
		w.b = append(w.b, ',')
	}
}

// key prints a member's name; "" is for values in arrays and the outermost.
func (w *jsonWriter) key(name string) {
	w.comma()
	if name != "" {
		w.quote(name)
		w.b = append(w.b, ':')
	}
}

func (w *jsonWriter) text(name, value string) {
	w.key(name)
	w.quote(value)
}

// raw prints a value as it is: numbers, null, true, a whole array.
func (w *jsonWriter) raw(name, value string) {
	w.key(name)
	w.b = append(w.b, value...)
}

func (w *jsonWriter) open(name string, bracket byte) {
	w.key(name)
	w.b = append(w.b, bracket)
}

func (w *jsonWriter) close(bracket byte) { w.b = append(w.b, bracket) }

func (w *jsonWriter) quote(s string) {
	w.b = append(w.b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.b = append(w.b, '\\', byte(r))
		case r == '\n':
			w.b = append(w.b, '\\', 'n')
		case r == '\t':
			w.b = append(w.b, '\\', 't')
		case r < ' ' || w.ascii && r > '~' && r <= 0xffff:
			w.b = fmt.Appendf(w.b, `\u%04x`, r)
		default:
			w.b = utf8.AppendRune(w.b, r)
		}
	}
	w.b = append(w.b, '"')
}
