// Package rawjson finds values in JSON text without decoding it.
//
// Resource Graph's rows must leave the simulator byte for byte as they were
// put in, and only three or four of their members are ever looked at. So the
// functions here return sub-slices of the text they are given: nothing is
// copied, numbers keep their digits, and a value that nobody asks for is only
// stepped over. Text that is not JSON is not reported as such: the functions
// answer "not there" and never read outside the slice.
package rawjson

import (
	"bytes"
	"encoding/json"
)

// Member returns the value of the object's first member called key, as the
// slice of object that holds it without surrounding white space. It is false
// when object is not an object, has no such member, or is broken before it.
func Member(object []byte, key string) ([]byte, bool) {
	var found []byte
	ok := false
	Members(object, func(name, value []byte) bool {
		if !sameKey(name, key) {
			return true
		}
		found, ok = value, true
		return false
	})
	return found, ok
}

// Members calls visit with each member's name (the text between the quotes,
// escapes and all) and value, in the order of the text, until visit returns
// false. It returns false if object is not an object or breaks off.
func Members(object []byte, visit func(name, value []byte) bool) bool {
	i := space(object, 0)
	if i >= len(object) || object[i] != '{' {
		return false
	}
	i = space(object, i+1)
	if i < len(object) && object[i] == '}' {
		return true
	}
	for {
		if i >= len(object) || object[i] != '"' {
			return false
		}
		end := skipString(object, i)
		if end < 0 {
			return false
		}
		name := object[i+1 : end-1]
		i = space(object, end)
		if i >= len(object) || object[i] != ':' {
			return false
		}
		i = space(object, i+1)
		end = skipValue(object, i)
		if end < 0 {
			return false
		}
		if !visit(name, object[i:end]) {
			return true
		}
		i = space(object, end)
		if i >= len(object) {
			return false
		}
		if object[i] == '}' {
			return true
		}
		if object[i] != ',' {
			return false
		}
		i = space(object, i+1)
	}
}

// Element returns the array's n-th value, counted from 0.
func Element(array []byte, n int) ([]byte, bool) {
	i := space(array, 0)
	if n < 0 || i >= len(array) || array[i] != '[' {
		return nil, false
	}
	i = space(array, i+1)
	for {
		end := skipValue(array, i)
		if end < 0 {
			return nil, false
		}
		if n == 0 {
			return array[i:end], true
		}
		n--
		i = space(array, end)
		if i >= len(array) || array[i] != ',' {
			return nil, false
		}
		i = space(array, i+1)
	}
}

// String decodes a JSON string. It is false for any other value.
func String(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return "", false
	}
	return s, true
}

// StringMember decodes the object's first member called key if it is a string.
func StringMember(object []byte, key string) (string, bool) {
	value, ok := Member(object, key)
	if !ok {
		return "", false
	}
	return String(value)
}

// IsObject tells whether text begins like an object.
func IsObject(text []byte) bool {
	i := space(text, 0)
	return i < len(text) && text[i] == '{'
}

func sameKey(name []byte, key string) bool {
	if string(name) == key {
		return true
	}
	if bytes.IndexByte(name, '\\') < 0 {
		return false
	}
	quoted := make([]byte, 0, len(name)+2)
	quoted = append(append(append(quoted, '"'), name...), '"')
	s, ok := String(quoted)
	return ok && s == key
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index after the string that begins at i, or -1.
func skipString(b []byte, i int) int {
	i++
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		escape := bytes.IndexByte(b[i:i+n], '\\')
		if escape < 0 {
			return i + n + 1
		}
		i += escape + 2
		if i > len(b) {
			return -1
		}
	}
}

// skipValue returns the index after the value that begins at i, or -1. Only
// strings, braces and brackets are looked at, so a broken number passes.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	start := i
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r', '"', ':', '{', '[':
			if i == start {
				return -1
			}
			return i
		}
		i++
	}
	return i
}

func skipNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			if i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}
