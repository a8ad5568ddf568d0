// Package pickle reads Python pickles that hold plain data, and nothing else.
//
// A pickle is a program for a stack machine, and one that comes from outside may call any function of its
// reader's process. This reader has no opcode that names a class or calls anything: a pickle with one is
// refused. It reads what Python 3 writes for None, bool, int, float, str, bytes, tuple, list and dict in the
// protocols 0 to 5.
//
// Why not a library: github.com/nlpodyssey/gopickle (v0.2.0) reserves as much memory as a frame's header
// asks for, which no limit around it can hold back; github.com/kisielk/og-rek (v1.3.0) copies a list that
// is referred to twice before its items are in it, so that the second place silently reads as empty.
//
// The opcodes are those of CPython's Lib/pickle.py and Lib/pickletools.py.
package pickle

import (
	"errors"
	"fmt"
)

// Limits of what is read. They bound memory to some 50 MiB and time to well below a second.
const (
	// MaxBytes is the largest pickle.
	MaxBytes = 4 << 20
	// MaxValues bounds the instructions of a pickle, and the values in what it describes: a value that
	// is referred to several times counts each time.
	MaxValues = 1 << 18
	// MaxDepth bounds how deep lists, tuples and dicts lie in each other.
	MaxDepth = 32
)

var (
	// ErrMalformed: no pickle, a damaged one, or one that was cut off.
	ErrMalformed = errors.New("not a whole pickle")
	// ErrNotPlain: it holds something that is not plain data, such as an object.
	ErrNotPlain = errors.New("the pickle holds more than plain data")
	// ErrTooLarge: one of the limits is exceeded, or a value contains itself.
	ErrTooLarge = errors.New("the pickle is too large")
)

// Load reads the one pickle that data is. The result is made of nil, bool, int64, float64, string, []byte,
// []any (lists and tuples) and map[string]any (dicts). Byte slices share data's memory; no list or dict is
// shared with another, so that a caller may change what it got.
//
// An error wraps ErrMalformed, ErrNotPlain or ErrTooLarge and names the place. Integers beyond 64 bits and
// dicts with keys that are not text count as ErrNotPlain, and so do bytes in the protocols 0 to 2, where
// they are the result of a call. Nothing is returned beside an error. Load is safe for concurrent use.
func Load(data []byte) (any, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrTooLarge, len(data), MaxBytes)
	}
	m := &machine{data: data, memo: map[uint64]any{}}
	v, err := m.run()
	if err != nil {
		return nil, fmt.Errorf("%w (at byte %d)", err, m.at)
	}
	t := &tree{left: MaxValues}
	return t.plain(v, 0)
}

// While the machine runs, lists and dicts are pointers: an instruction may add to one that several places
// refer to. A tuple is complete when it is made.
type (
	list  struct{ items []any }
	dict  struct{ pairs []any } // key, value, key, value
	tuple []any
	mark  struct{}
)

// tree turns what the machine left into plain values.
type tree struct{ left int }

func (t *tree) plain(v any, depth int) (any, error) {
	if t.left--; t.left < 0 {
		return nil, fmt.Errorf("%w: more than %d values", ErrTooLarge, MaxValues)
	}
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: more than %d levels, or a value that contains itself", ErrTooLarge, MaxDepth)
	}
	switch v := v.(type) {
	case *list:
		return t.slice(v.items, depth)
	case tuple:
		return t.slice(v, depth)
	case *dict:
		out := make(map[string]any, min(len(v.pairs)/2, max(t.left, 0)))
		for i := 0; i < len(v.pairs); i += 2 {
			key, ok := v.pairs[i].(string)
			if !ok {
				return nil, fmt.Errorf("%w: a key that is not text", ErrNotPlain)
			}
			value, err := t.plain(v.pairs[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			out[key] = value // the last one counts, as in Python
		}
		return out, nil
	}
	return v, nil
}

func (t *tree) slice(items []any, depth int) (any, error) {
	out := make([]any, 0, min(len(items), max(t.left, 0)))
	for _, item := range items {
		value, err := t.plain(item, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}
