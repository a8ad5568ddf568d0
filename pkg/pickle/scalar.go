package pickle

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scalar executes what pushes one number, text or byte string.
func (m *machine) scalar(op byte) error {
	switch op {
	case 'I', 'L', 'F', 'V': // INT, LONG, FLOAT, UNICODE: a line of text
		line, err := m.line()
		if err != nil {
			return err
		}
		return m.textual(op, string(line))
	case 'K', 'M': // BININT1, BININT2
		v, err := m.size(map[byte]uint64{'K': 1, 'M': 2}[op])
		if err != nil {
			return err
		}
		m.push(int64(v))
		return nil
	case 'J': // BININT
		v, err := m.size(4)
		if err != nil {
			return err
		}
		m.push(int64(int32(uint32(v))))
		return nil
	case 0x8a: // LONG1
		b, err := m.sized(1)
		if err != nil {
			return err
		}
		return m.pushLong(b)
	case 0x8b: // LONG4
		b, err := m.sized(4)
		if err != nil {
			return err
		}
		return m.pushLong(b)
	case 'G': // BINFLOAT
		return m.float()
	}
	width := map[byte]uint64{0x8c: 1, 'X': 4, 0x8d: 8, 'C': 1, 'B': 4, 0x8e: 8}[op]
	b, err := m.sized(width)
	if err != nil {
		return err
	}
	switch op {
	case 0x8c, 'X', 0x8d: // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
		return m.pushText(b)
	}
	m.push(b) // SHORT_BINBYTES, BINBYTES, BINBYTES8
	return nil
}

// textual pushes a value of protocol 0.
func (m *machine) textual(op byte, line string) error {
	switch op {
	case 'I':
		if line == "00" || line == "01" {
			m.push(line == "01")
			return nil
		}
		return m.pushDecimal(line)
	case 'L':
		return m.pushDecimal(strings.TrimSuffix(line, "L"))
	case 'F':
		v, err := strconv.ParseFloat(line, 64)
		if err != nil {
			return fmt.Errorf("%w: %.40q is no number", ErrMalformed, line)
		}
		m.push(v)
		return nil
	}
	text, err := unescape(line)
	if err != nil {
		return err
	}
	m.push(text)
	return nil
}

func (m *machine) pushDecimal(text string) error {
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %.40q is no integer of 64 bits", ErrNotPlain, text)
	}
	m.push(v)
	return nil
}

// pushLong pushes a little-endian two's complement number.
func (m *machine) pushLong(b []byte) error {
	if len(b) > 8 {
		return fmt.Errorf("%w: an integer of more than 64 bits", ErrNotPlain)
	}
	var v int64
	for i, c := range b {
		v |= int64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v -= 1 << (8 * n)
	}
	m.push(v)
	return nil
}

func (m *machine) decimalKey() (uint64, error) {
	line, err := m.line()
	if err != nil {
		return 0, err
	}
	key, err := strconv.ParseUint(string(line), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q names no stored value", ErrMalformed, line)
	}
	return key, nil
}

// unescape reads Python's raw-unicode-escape: Latin-1, and \uXXXX and \UXXXXXXXX.
func unescape(line string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		digits := 0
		if line[i] == '\\' && i+1 < len(line) {
			digits = map[byte]int{'u': 4, 'U': 8}[line[i+1]]
		}
		if digits == 0 {
			b.WriteRune(rune(line[i]))
			continue
		}
		if i+2+digits > len(line) {
			return "", fmt.Errorf("%w: an escape is cut", ErrMalformed)
		}
		v, err := strconv.ParseUint(line[i+2:i+2+digits], 16, 32)
		if err != nil || v > utf8.MaxRune || utf16.IsSurrogate(rune(v)) {
			return "", fmt.Errorf("%w: %q is no character", ErrMalformed, line[i:i+2+digits])
		}
		b.WriteRune(rune(v))
		i += 1 + digits
	}
	return b.String(), nil
}
