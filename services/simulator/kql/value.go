package kql

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"defenderiot/services/simulator/rawjson"
)

// Kind is a Kusto scalar type.
type Kind uint8

// The scalar types that occur in Resource Graph's tables and expressions.
// Null is the type of the literal null only; a null value of another type has
// kind Null at run time.
const (
	Null Kind = iota
	Bool
	Long
	Real
	String
	DateTime
	Timespan
	Dynamic
)

var kindNames = [...]string{"null", "bool", "long", "real", "string", "datetime", "timespan", "dynamic"}

func (k Kind) String() string { return kindNames[k] }

// Value is one scalar. The zero Value is null.
type Value struct {
	kind Kind
	num  int64 // Bool (0, 1), Long, DateTime and Timespan (ticks)
	real float64
	text string // String
	raw  []byte // Dynamic: JSON text
}

// StringValue returns a string; a Kusto string is never null.
func StringValue(s string) Value { return Value{kind: String, text: s} }

// BoolValue returns a bool.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// LongValue returns an integer.
func LongValue(n int64) Value { return Value{kind: Long, num: n} }

// DateTimeValue returns a point in time.
func DateTimeValue(t Ticks) Value { return Value{kind: DateTime, num: int64(t)} }

// DynamicValue returns a JSON value, which is kept as its text. The caller
// must not change raw afterwards.
func DynamicValue(raw []byte) Value {
	if len(raw) == 0 {
		return Value{}
	}
	return Value{kind: Dynamic, raw: raw}
}

// Kind returns the value's type, Null for a null.
func (v Value) Kind() Kind { return v.kind }

// IsTrue tells whether v is true, as a bool or within a dynamic value; null is
// not.
func (v Value) IsTrue() bool {
	v = v.scalar()
	return v.kind == Bool && v.num == 1
}

// Ticks returns a datetime's or timespan's ticks, 0 for other kinds.
func (v Value) Ticks() Ticks {
	if v.kind == DateTime || v.kind == Timespan {
		return Ticks(v.num)
	}
	return 0
}

// Text returns a string's content, "" for other kinds.
func (v Value) Text() string { return v.text }

// scalar turns a dynamic value that holds a JSON scalar into that scalar.
func (v Value) scalar() Value {
	if v.kind != Dynamic {
		return v
	}
	switch v.raw[0] {
	case '"':
		if s, ok := rawjson.String(v.raw); ok {
			return StringValue(s)
		}
		return Value{}
	case '{', '[':
		return v
	case 't':
		return BoolValue(true)
	case 'f':
		return BoolValue(false)
	case 'n':
		return Value{}
	}
	if n, err := strconv.ParseInt(string(v.raw), 10, 64); err == nil {
		return LongValue(n)
	}
	if f, err := strconv.ParseFloat(string(v.raw), 64); err == nil {
		return Value{kind: Real, real: f}
	}
	return Value{}
}

// member steps into a dynamic object; null where there is no such member.
func (v Value) member(name string) Value {
	if v.kind != Dynamic {
		return Value{}
	}
	raw, _ := rawjson.Member(v.raw, name)
	return DynamicValue(raw)
}

func (v Value) element(n int) Value {
	if v.kind != Dynamic {
		return Value{}
	}
	raw, _ := rawjson.Element(v.raw, n)
	return DynamicValue(raw)
}

// toString is Kusto's tostring(): "" for null.
func (v Value) toString() string {
	v = v.scalar()
	switch v.kind {
	case Bool:
		if v.num == 1 {
			return "True"
		}
		return "False"
	case Long, Timespan:
		return strconv.FormatInt(v.num, 10)
	case Real:
		return strconv.FormatFloat(v.real, 'g', -1, 64)
	case String:
		return v.text
	case DateTime:
		return Ticks(v.num).String()
	case Dynamic:
		return string(v.raw)
	}
	return ""
}

// toDateTime is Kusto's todatetime(): null for what is no time.
func (v Value) toDateTime() Value {
	v = v.scalar()
	switch v.kind {
	case DateTime:
		return v
	case String:
		if t, ok := ParseDateTime(v.text); ok {
			return DateTimeValue(t)
		}
	}
	return Value{}
}

// AppendJSON appends the value as Resource Graph prints it. A dynamic value
// is appended as the text it came in.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(dst, v.num == 1)
	case Long, Timespan:
		return strconv.AppendInt(dst, v.num, 10)
	case Real:
		return strconv.AppendFloat(dst, v.real, 'g', -1, 64)
	case String, DateTime:
		return appendString(dst, v.toString())
	case Dynamic:
		return append(dst, v.raw...)
	}
	return append(dst, "null"...)
}

func appendString(dst []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) != nil {
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// order compares two values of one sort key: nulls first, then by value.
// Values of different kinds cannot meet here, since keys are typed.
func order(a, b Value) int {
	switch {
	case a.kind == Null || b.kind == Null:
		return b2i(a.kind != Null) - b2i(b.kind != Null)
	case a.kind == String && b.kind == String:
		return strings.Compare(a.text, b.text)
	}
	c, _ := a.compare(b)
	return c
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compare orders numbers, times and spans; false if that makes no sense.
func (v Value) compare(w Value) (int, bool) {
	switch {
	case v.kind == w.kind && (v.kind == Long || v.kind == DateTime || v.kind == Timespan || v.kind == Bool):
		return cmp(v.num, w.num), true
	case v.number() && w.number():
		return cmp(v.float(), w.float()), true
	case v.kind == DateTime && w.kind == String, v.kind == String && w.kind == DateTime:
		a, b := v.toDateTime(), w.toDateTime()
		if a.kind == Null || b.kind == Null {
			return 0, false
		}
		return cmp(a.num, b.num), true
	case v.kind == String && w.kind == String:
		return strings.Compare(v.text, w.text), true
	}
	return 0, false
}

func (v Value) number() bool { return v.kind == Long || v.kind == Real }

func (v Value) float() float64 {
	if v.kind == Long {
		return float64(v.num)
	}
	return v.real
}

func cmp[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
