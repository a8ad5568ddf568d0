package devo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a row; encoding/json has the same bound.
const maxDepth = 10000

// checkObject returns nil if row is exactly one JSON object (RFC 8259) in UTF-8, without blanks around
// it. It accepts what encoding/json accepts for an object, except bytes that are no UTF-8, and takes a
// fraction of its time because it only walks over the bytes: this runs for every event that is sent.
func checkObject(row []byte) error {
	if len(row) == 0 || row[0] != '{' {
		return errors.New("row is not a JSON object")
	}
	if !utf8.Valid(row) {
		return errors.New("row is not valid UTF-8")
	}
	end, problem := skipObject(row, 1, 1)
	if problem == "" && end < len(row) {
		problem = "something follows the object"
	}
	if problem != "" {
		return fmt.Errorf("row is not a JSON object: %s at byte %d of %d", problem, end, len(row))
	}
	return nil
}

const (
	endsEarly  = "it ends too early"
	unexpected = "unexpected character"
	tooDeep    = "nested too deeply"
)

// The skip functions return the place behind what they skip, or the place of the problem and its name.

func skipValue(b []byte, i, depth int) (int, string) {
	if i >= len(b) {
		return i, endsEarly
	}
	switch b[i] {
	case '"':
		return skipString(b, i+1)
	case '{':
		return skipObject(b, i+1, depth+1)
	case '[':
		return skipArray(b, i+1, depth+1)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

func skipObject(b []byte, i, depth int) (int, string) {
	if depth > maxDepth {
		return i, tooDeep
	}
	i = skipBlanks(b, i)
	if i < len(b) && b[i] == '}' {
		return i + 1, ""
	}
	for {
		if i >= len(b) {
			return i, endsEarly
		}
		if b[i] != '"' {
			return i, unexpected
		}
		var problem string
		if i, problem = skipString(b, i+1); problem != "" {
			return i, problem
		}
		if i = skipBlanks(b, i); i >= len(b) {
			return i, endsEarly
		}
		if b[i] != ':' {
			return i, unexpected
		}
		if i, problem = skipValue(b, skipBlanks(b, i+1), depth); problem != "" {
			return i, problem
		}
		if i = skipBlanks(b, i); i >= len(b) {
			return i, endsEarly
		}
		switch b[i] {
		case '}':
			return i + 1, ""
		case ',':
			i = skipBlanks(b, i+1)
		default:
			return i, unexpected
		}
	}
}

func skipArray(b []byte, i, depth int) (int, string) {
	if depth > maxDepth {
		return i, tooDeep
	}
	i = skipBlanks(b, i)
	if i < len(b) && b[i] == ']' {
		return i + 1, ""
	}
	for {
		var problem string
		if i, problem = skipValue(b, i, depth); problem != "" {
			return i, problem
		}
		if i = skipBlanks(b, i); i >= len(b) {
			return i, endsEarly
		}
		switch b[i] {
		case ']':
			return i + 1, ""
		case ',':
			i = skipBlanks(b, i+1)
		default:
			return i, unexpected
		}
	}
}

// skipString skips what follows the opening quote.
func skipString(b []byte, i int) (int, string) {
	for {
		i = skipPlain(b, i)
		if i >= len(b) {
			return i, endsEarly
		}
		switch b[i] {
		case '"':
			return i + 1, ""
		case '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				return i, "bad escape"
			}
			i += n
		default:
			return i, "control character inside a string"
		}
	}
}

// skipPlain skips the bytes of a string that need no look: all but quote, backslash and controls. It
// takes eight at a time, because nearly all of a row lies in its strings.
func skipPlain(b []byte, i int) int {
	const (
		each = 0x0101010101010101
		high = 0x8080808080808080
	)
	for ; len(b)-i >= 8; i += 8 {
		// The subtractions set a byte's high bit where it is below a space, equal to the quote or to
		// the backslash. A borrow can set it wrongly too, but only above a byte where it is right.
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^each*'"', w^each*'\\'
		if found := ((w-each*' ')&^w | (quote-each)&^quote | (slash-each)&^slash) & high; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// escapeLen returns the length of the escape that b begins with, or 0.
func escapeLen(b []byte) int {
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
			if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func skipWord(b []byte, i int, word string) (int, string) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, unexpected
	}
	return i + len(word), ""
}

func skipNumber(b []byte, i int) (int, string) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	first := i
	if i = skipDigits(b, i); i == first || b[first] == '0' && i > first+1 {
		return first, unexpected
	}
	if i < len(b) && b[i] == '.' {
		first = i + 1
		if i = skipDigits(b, first); i == first {
			return first, unexpected
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		first = i
		if i = skipDigits(b, first); i == first {
			return first, unexpected
		}
	}
	return i, ""
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

func skipBlanks(b []byte, i int) int {
	for i < len(b) && isBlank(b[i]) {
		i++
	}
	return i
}

// trimBlanks cuts JSON's four blanks off both ends.
func trimBlanks(b []byte) []byte {
	b = b[skipBlanks(b, 0):]
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isBlank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
