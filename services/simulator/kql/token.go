package kql

import (
	"fmt"
	"strings"
)

// ParseError says where a query is wrong. Resource Graph answers it as 400
// BadRequest with the details InvalidQuery and ParserFailure.
type ParseError struct {
	Line   int    // from 1
	Column int    // from 0, in bytes
	Token  string // what was found, "<EOF>" at the end
	Reason string // what was expected or is wrong
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("line %d, column %d: at %q: %s", e.Line, e.Column, e.Token, e.Reason)
}

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokName
	tokString
	tokNumber
	tokSpan
	tokDateTime
	tokSign
)

type token struct {
	kind tokenKind
	text string // names, signs and numbers as written; strings decoded
	pos  int
	span Ticks
}

// signs, longest first.
var signs = []string{"==", "=~", "!=", "!~", "<=", ">=", "|", "=", "<", ">", "(", ")", ",", ".", "[", "]", "-", "!"}

type lexer struct {
	src string
	pos int
}

func (l *lexer) fail(pos int, reason string) *ParseError {
	pos = min(pos, len(l.src))
	found := "<EOF>"
	if rest := strings.Fields(l.src[pos:]); len(rest) > 0 {
		found = rest[0]
		if len(found) > 40 {
			found = found[:40]
		}
	}
	before := l.src[:pos]
	return &ParseError{
		Line:   1 + strings.Count(before, "\n"),
		Column: pos - (strings.LastIndexByte(before, '\n') + 1),
		Token:  strings.ToValidUTF8(found, "\uFFFD"),
		Reason: reason,
	}
}

// next returns the next token; comments and white space are passed over.
func (l *lexer) next() (token, error) {
	l.blank()
	start := l.pos
	if start >= len(l.src) {
		return token{kind: tokEOF, pos: start}, nil
	}
	c := l.src[start]
	switch {
	case c == '\'' || c == '"':
		return l.quoted(c, false)
	case c == '@' && start+1 < len(l.src) && (l.src[start+1] == '\'' || l.src[start+1] == '"'):
		l.pos++
		return l.quoted(l.src[start+1], true)
	case isDigit(c):
		return l.number()
	case isLetter(c):
		for l.pos < len(l.src) && (isLetter(l.src[l.pos]) || isDigit(l.src[l.pos])) {
			l.pos++
		}
		name := l.src[start:l.pos]
		if name == "datetime" {
			return l.datetime(start)
		}
		return token{kind: tokName, text: name, pos: start}, nil
	}
	for _, s := range signs {
		if strings.HasPrefix(l.src[start:], s) {
			l.pos += len(s)
			return token{kind: tokSign, text: s, pos: start}, nil
		}
	}
	return token{}, l.fail(start, "unexpected character")
}

func (l *lexer) blank() {
	for l.pos < len(l.src) {
		switch {
		case strings.IndexByte(" \t\r\n", l.src[l.pos]) >= 0:
			l.pos++
		case strings.HasPrefix(l.src[l.pos:], "//"):
			end := strings.IndexByte(l.src[l.pos:], '\n')
			if end < 0 {
				l.pos = len(l.src)
				return
			}
			l.pos += end
		default:
			return
		}
	}
}

// quoted reads a string literal; in a verbatim one (@'...') a backslash is
// itself and a doubled quote stands for one.
func (l *lexer) quoted(quote byte, verbatim bool) (token, error) {
	start := l.pos
	var b strings.Builder
	for l.pos++; l.pos < len(l.src); l.pos++ {
		c := l.src[l.pos]
		switch {
		case c == quote && verbatim && l.pos+1 < len(l.src) && l.src[l.pos+1] == quote:
			l.pos++
			b.WriteByte(quote)
		case c == quote:
			l.pos++
			return token{kind: tokString, text: b.String(), pos: start}, nil
		case c == '\n':
			return token{}, l.fail(start, "string literal does not end on its line")
		case c == '\\' && !verbatim:
			l.pos++
			if l.pos >= len(l.src) {
				return token{}, l.fail(start, "string literal does not end")
			}
			n := strings.IndexByte(`\'"ntr0`, l.src[l.pos])
			if n < 0 {
				return token{}, l.fail(l.pos-1, "unknown escape sequence")
			}
			b.WriteByte("\\'\"\n\t\r\x00"[n])
		default:
			b.WriteByte(c)
		}
	}
	return token{}, l.fail(start, "string literal does not end")
}

// spans are the units a number may carry, as ticks.
var spans = map[string]Ticks{
	"d": 864_000_000_000, "h": 36_000_000_000, "m": 600_000_000, "s": 10_000_000, "ms": 10_000,
	"day": 864_000_000_000, "days": 864_000_000_000, "hour": 36_000_000_000, "hours": 36_000_000_000,
	"minute": 600_000_000, "minutes": 600_000_000, "second": 10_000_000, "seconds": 10_000_000,
	"microsecond": 10, "tick": 1,
}

func (l *lexer) number() (token, error) {
	start := l.pos
	for l.pos < len(l.src) && isDigit(l.src[l.pos]) {
		l.pos++
	}
	if l.pos+1 < len(l.src) && l.src[l.pos] == '.' && isDigit(l.src[l.pos+1]) {
		for l.pos++; l.pos < len(l.src) && isDigit(l.src[l.pos]); l.pos++ {
		}
	}
	text := l.src[start:l.pos]
	unitAt := l.pos
	for l.pos < len(l.src) && (isLetter(l.src[l.pos]) || isDigit(l.src[l.pos])) {
		l.pos++
	}
	unit := l.src[unitAt:l.pos]
	if unit == "" {
		return token{kind: tokNumber, text: text, pos: start}, nil
	}
	size, ok := spans[unit]
	var amount float64
	if _, err := fmt.Sscanf(text, "%g", &amount); err != nil || !ok || amount*float64(size) > 1e18 {
		return token{}, l.fail(start, "not a number or a timespan")
	}
	return token{kind: tokSpan, span: Ticks(amount * float64(size)), text: l.src[start:l.pos], pos: start}, nil
}

func (l *lexer) datetime(start int) (token, error) {
	l.blank()
	if l.pos >= len(l.src) || l.src[l.pos] != '(' {
		return token{}, l.fail(l.pos, "expected ( after datetime")
	}
	end := strings.IndexByte(l.src[l.pos:], ')')
	if end < 0 {
		return token{}, l.fail(l.pos, "expected ) after datetime(")
	}
	text := strings.TrimSpace(l.src[l.pos+1 : l.pos+end])
	if n := len(text); n >= 2 && (text[0] == '\'' || text[0] == '"') && text[n-1] == text[0] {
		text = text[1 : n-1]
	}
	l.pos += end + 1
	return token{kind: tokDateTime, text: text, pos: start}, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
