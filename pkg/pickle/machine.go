package pickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// machine executes a pickle.
type machine struct {
	data  []byte
	at    int
	stack []any
	memo  map[uint64]any
}

var (
	errCut   = fmt.Errorf("%w: it ends too early", ErrMalformed)
	errStack = fmt.Errorf("%w: an instruction misses its operands", ErrMalformed)
)

// run executes instructions until the last one and returns the value that is left.
func (m *machine) run() (any, error) {
	for range MaxValues {
		op, err := m.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] != '.' {
			if err := m.step(op[0]); err != nil {
				return nil, err
			}
			continue
		}
		switch {
		case len(m.stack) != 1 || m.stack[0] == any(mark{}):
			return nil, fmt.Errorf("%w: it does not end with one value", ErrMalformed)
		case m.at != len(m.data):
			return nil, fmt.Errorf("%w: %d bytes follow its end", ErrMalformed, len(m.data)-m.at)
		}
		return m.stack[0], nil
	}
	return nil, fmt.Errorf("%w: more than %d instructions", ErrTooLarge, MaxValues)
}

// step executes one instruction.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		version, err := m.take(1)
		if err == nil && version[0] > 5 {
			err = fmt.Errorf("%w: protocol %d is not known", ErrMalformed, version[0])
		}
		return err
	case 0x95: // FRAME: how much to read ahead, which is all here already
		_, err := m.take(8)
		return err
	case '(': // MARK
		m.push(mark{})
	case '0': // POP
		_, err := m.pop(1)
		return err
	case '1': // POP_MARK
		_, err := m.popMark()
		return err
	case '2': // DUP
		top, err := m.top()
		if err != nil {
			return err
		}
		m.push(top)
	case 'N': // NONE
		m.push(nil)
	case 0x88: // NEWTRUE
		m.push(true)
	case 0x89: // NEWFALSE
		m.push(false)
	case 'I', 'L', 'F', 'V', 'K', 'M', 'J', 0x8a, 0x8b, 'G', 'X', 0x8c, 0x8d, 'B', 'C', 0x8e:
		return m.scalar(op)
	case ']', 'l', 'a', 'e', ')', 't', 0x85, 0x86, 0x87, '}', 'd', 's', 'u':
		return m.container(op)
	case 'p', 'q', 'r', 0x94, 'g', 'h', 'j':
		return m.remember(op)
	case 'c', 'R', 'b', 'i', 'o', 0x81, 0x82, 0x83, 0x84, 0x92, 0x93, 'P', 'Q':
		return fmt.Errorf("%w: an object or a call (opcode 0x%02x)", ErrNotPlain, op)
	case 0x8f, 0x90, 0x91, 0x96, 0x97, 0x98:
		return fmt.Errorf("%w: a set or a buffer (opcode 0x%02x)", ErrNotPlain, op)
	case 'S', 'T', 'U':
		return fmt.Errorf("%w: a string of Python 2 (opcode 0x%02x)", ErrNotPlain, op)
	default:
		return fmt.Errorf("%w: 0x%02x is no opcode", ErrMalformed, op)
	}
	return nil
}

// container executes what makes or fills lists, tuples and dicts.
func (m *machine) container(op byte) error {
	switch op {
	case ']': // EMPTY_LIST
		m.push(&list{})
	case '}': // EMPTY_DICT
		m.push(&dict{})
	case ')': // EMPTY_TUPLE
		m.push(tuple{})
	case 'l', 't', 'd': // LIST, TUPLE, DICT
		items, err := m.popMark()
		if err != nil {
			return err
		}
		switch op {
		case 'l':
			m.push(&list{items})
		case 't':
			m.push(tuple(items))
		default:
			m.push(&dict{})
			return m.setItems(items)
		}
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		items, err := m.pop(int(op) - 0x84)
		if err != nil {
			return err
		}
		m.push(tuple(items))
	case 'a': // APPEND
		items, err := m.pop(1)
		if err != nil {
			return err
		}
		return m.appendItems(items)
	case 'e': // APPENDS
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.appendItems(items)
	case 's': // SETITEM
		items, err := m.pop(2)
		if err != nil {
			return err
		}
		return m.setItems(items)
	case 'u': // SETITEMS
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.setItems(items)
	}
	return nil
}

func (m *machine) appendItems(items []any) error {
	top, err := m.top()
	if err != nil {
		return err
	}
	l, ok := top.(*list)
	if !ok {
		return fmt.Errorf("%w: items for what is no list", ErrMalformed)
	}
	l.items = append(l.items, items...)
	return nil
}

func (m *machine) setItems(items []any) error {
	top, err := m.top()
	if err != nil {
		return err
	}
	d, ok := top.(*dict)
	if !ok || len(items)%2 != 0 {
		return fmt.Errorf("%w: pairs for what is no dict", ErrMalformed)
	}
	d.pairs = append(d.pairs, items...)
	return nil
}

// remember executes what stores a value under a number and what pushes it again.
func (m *machine) remember(op byte) error {
	var key uint64
	var err error
	switch op {
	case 'p', 'g': // PUT, GET
		key, err = m.decimalKey()
	case 'q', 'h': // BINPUT, BINGET
		key, err = m.size(1)
	case 'r', 'j': // LONG_BINPUT, LONG_BINGET
		key, err = m.size(4)
	case 0x94: // MEMOIZE
		key = uint64(len(m.memo))
	}
	if err != nil {
		return err
	}
	if op == 'g' || op == 'h' || op == 'j' {
		v, ok := m.memo[key]
		if !ok {
			return fmt.Errorf("%w: value %d was never stored", ErrMalformed, key)
		}
		m.push(v)
		return nil
	}
	top, err := m.top()
	if err != nil {
		return err
	}
	m.memo[key] = top
	return nil
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// top is the uppermost value, which is left where it is.
func (m *machine) top() (any, error) {
	if len(m.stack) == 0 || m.stack[len(m.stack)-1] == any(mark{}) {
		return nil, errStack
	}
	return m.stack[len(m.stack)-1], nil
}

// pop removes the n uppermost values and returns them in a slice of their own, lowest first.
func (m *machine) pop(n int) ([]any, error) {
	low := len(m.stack) - n
	if low < 0 {
		return nil, errStack
	}
	for _, v := range m.stack[low:] {
		if v == any(mark{}) {
			return nil, errStack
		}
	}
	items := append([]any(nil), m.stack[low:]...)
	m.stack = m.stack[:low]
	return items, nil
}

// popMark is pop down to the uppermost mark, which goes too.
func (m *machine) popMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if m.stack[i] == any(mark{}) {
			items, err := m.pop(len(m.stack) - 1 - i)
			m.stack = m.stack[:i]
			return items, err
		}
	}
	return nil, errStack
}

// take returns the next n bytes.
func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.data)-m.at) {
		return nil, errCut
	}
	b := m.data[m.at : m.at+int(n)]
	m.at += int(n)
	return b, nil
}

// line returns the bytes up to the next line feed.
func (m *machine) line() ([]byte, error) {
	n := bytes.IndexByte(m.data[m.at:], '\n')
	if n < 0 {
		return nil, errCut
	}
	b := m.data[m.at : m.at+n]
	m.at += n + 1
	return b, nil
}

// size reads an unsigned little-endian number of n bytes.
func (m *machine) size(n uint64) (uint64, error) {
	b, err := m.take(n)
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

// sized returns as many bytes as a number of n bytes before them says.
func (m *machine) sized(n uint64) ([]byte, error) {
	length, err := m.size(n)
	if err != nil {
		return nil, err
	}
	return m.take(length)
}

func (m *machine) pushText(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: text that is not UTF-8", ErrMalformed)
	}
	m.push(string(b))
	return nil
}

func (m *machine) float() error {
	b, err := m.take(8)
	if err != nil {
		return err
	}
	m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	return nil
}
