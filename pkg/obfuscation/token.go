package obfuscation

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// The tokens of RFC 8259, as strict as in encoding/json.

// unusual has the highest bit of a byte set where the eight bytes of w, the first of them lowest, hold a control
// character, a quote, a backslash or a byte beyond ASCII. Only the lowest such bit is to be trusted: a
// subtraction borrows from the bytes above.
func unusual(w uint64) uint64 {
	const one = 0x0101010101010101
	return (w | (w - one*0x20) | ((w ^ one*'"') - one) | ((w ^ one*'\\') - one)) & (one * 0x80)
}

// peek is the byte at pos, 0 at the end; 0 is no valid byte outside of a text.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// token reads a scalar. plain is quoted's.
func (s *scanner) token() (k kind, plain bool, err error) {
	switch c := s.peek(); {
	case c == '"':
		plain, err = s.quoted()
		return text, plain, err
	case c == 't':
		return boolean, true, s.word("true")
	case c == 'f':
		return boolean, true, s.word("false")
	case c == 'n':
		return null, true, s.word("null")
	case c == '-' || c-'0' <= 9:
		k, err = s.number()
		return k, true, err
	}
	return 0, false, s.syntax()
}

func (s *scanner) word(w string) error {
	if end := s.pos + len(w); end <= len(s.src) && string(s.src[s.pos:end]) == w {
		s.pos = end
		return nil
	}
	return s.syntax()
}

func (s *scanner) number() (kind, error) {
	k := integer
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return k, s.syntax()
	}
	if s.peek() == '.' {
		k = float
		s.pos++
		if !s.digits() {
			return k, s.syntax()
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		k = float
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return k, s.syntax()
		}
	}
	return k, nil
}

// digits reads at least one digit.
func (s *scanner) digits() bool {
	start := s.pos
	for s.peek()-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

// quoted reads a text. plain means that the text is exactly the bytes between the quotes: no escapes, and
// valid UTF-8.
func (s *scanner) quoted() (plain bool, err error) {
	if s.peek() != '"' {
		return false, s.syntax()
	}
	src, start := s.src, s.pos+1
	wides, escapes := false, false
	for i := start; ; {
		// Eight ordinary bytes at a time: the bytes of texts are most of a row.
		for len(src)-i >= 8 {
			found := unusual(binary.LittleEndian.Uint64(src[i:]))
			if found != 0 {
				i += bits.TrailingZeros64(found) / 8
				break
			}
			i += 8
		}
		if i >= len(src) {
			s.pos = i
			return false, s.syntax()
		}
		switch c := src[i]; {
		case c == '"':
			s.pos = i + 1
			return !escapes && (!wides || utf8.Valid(src[start:i])), nil
		case c == '\\':
			escapes = true
			n := escape(src[i:])
			if n == 0 {
				s.pos = i
				return false, s.syntax()
			}
			i += n
		case c < 0x20:
			s.pos = i
			return false, s.syntax()
		default:
			wides = wides || c >= utf8.RuneSelf
			i++
		}
	}
}

// escape is the length of the escape that b begins with; 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if c-'0' > 9 && c|0x20-'a' > 5 {
				return 0
			}
		}
		return 6
	}
	return 0
}
