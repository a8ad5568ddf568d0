package proto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"defenderiot/proto"
)

// fuzzDecode checks that decode never panics, that its errors tell what to do, and that what it accepts
// encodes to bytes that decode to the same; normal levels what an encoder writes anew.
func fuzzDecode[T encoder](f *testing.F, decode func([]byte) (T, error), normal func(T)) {
	for _, g := range goldens {
		data, err := g.value.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 2000)])
	}
	for _, k := range kinds {
		f.Add(record(f, k.fields...))
		f.Add(record(f, append([]field{{"zz", []any{1, map[string]int{"a": 1}}}}, k.fields...)...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			if !errors.Is(err, proto.ErrMalformed) && !errors.Is(err, proto.ErrNewerMajor) {
				t.Fatalf("neither malformed nor newer: %v", err)
			}
			return
		}
		again, err := v.Encode()
		if err != nil {
			t.Fatalf("decoded %+v does not encode: %v", v, err)
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("re-encoded %+v does not decode: %v", v, err)
		}
		normal(v)
		normal(back)
		if !reflect.DeepEqual(v, back) {
			t.Fatalf("%+v\ncame back as\n%+v", v, back)
		}
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	fuzzDecode(f, proto.DecodeEnvelope, func(e *proto.Envelope) {
		e.Minor = 0 // the encoder writes its own version
		if len(e.OtherHashes) == 0 {
			e.OtherHashes = nil
		}
	})
}

func FuzzDecodeLedger(f *testing.F) {
	fuzzDecode(f, proto.DecodeLedger, func(l *proto.Ledger) {
		checkShape(failer{}, &l.Written)
		checkShape(failer{}, &l.Confirmed)
		for _, s := range []*proto.Sequences{&l.Written, &l.Confirmed} {
			*s = s.Clone()
			if len(s.Ranges()) == 0 {
				*s = proto.Sequences{}
			}
		}
	})
}

// failer reports by panic, which a fuzz run counts as a failure of its input.
type failer struct{}

func (failer) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func FuzzDecodeDeadLetter(f *testing.F) {
	fuzzDecode(f, proto.DecodeDeadLetter, func(d *proto.DeadLetter) {
		if len(d.Payload) == 0 {
			d.Payload = nil
		}
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	fuzzDecode(f, proto.DecodeCheckpoint, func(c *proto.Checkpoint) {
		// Times in zones and empty lists have several spellings: compare what they are written as.
		text, err := c.Encode()
		if err != nil {
			panic(err)
		}
		*c = proto.Checkpoint{Deduplication: string(text)}
	})
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "=", "a", "devo us-1", "a.b*c>d", "\x00\xff", "Ä", "=41", "==", "output-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		token := proto.Token(name)
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n/\\\x00") {
			t.Fatalf("%q is no subject token", token)
		}
		if back, err := proto.FromToken(token); err != nil || back != name {
			t.Fatalf("%q came back as %q, %v", name, back, err)
		}
		// Whatever is accepted as a token is the one token of its name.
		if back, err := proto.FromToken(name); err == nil && proto.Token(back) != name && name != "" {
			t.Fatalf("%q and %q are tokens of %q", name, proto.Token(back), back)
		}
	})
}

// FuzzCanonical goes through the hash, which is what canonical form is for.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1,2.50,{"c":null}],"a":"é\u00e9"}`), "1", "1.0")
	f.Add([]byte(`{"a":{"b":{"c":1e5}}}`), "9007199254740993", "9007199254740992")
	f.Add([]byte(`[true,false,"<>&\u2028"]`), "-0", "0e7")
	f.Add([]byte(`"\ud800"`), "1e40", "10e39")
	f.Add([]byte(`0.00001`), "1e-7", "0.0000001")
	f.Fuzz(func(t *testing.T, properties []byte, one, two string) {
		if json.Valid(properties) {
			want := hashOf(t, properties)
			var indented bytes.Buffer
			if err := json.Indent(&indented, properties, " ", "\t"); err != nil {
				t.Fatal(err)
			}
			if got := hashOf(t, indented.Bytes()); got != want {
				t.Fatalf("indenting changed the hash of %s", properties)
			}
			if reversed, ok := reverseKeys(properties); ok && hashOf(t, reversed) != want {
				t.Fatalf("another key order changed the hash: %s and %s", properties, reversed)
			}
		}
		a, okA := value(one)
		b, okB := value(two)
		if !okA || !okB {
			return
		}
		same := hashOf(t, []byte(`{"n":`+one+`}`)) == hashOf(t, []byte(`{"n":`+two+`}`))
		if same != (a.Cmp(b) == 0) {
			t.Fatalf("%s and %s: same hash %v, same value %v", one, two, same, !same)
		}
	})
}

func hashOf(t *testing.T, properties []byte) string {
	t.Helper()
	h, err := proto.HashVersionOf("/a1", append(append([]byte(`{"properties":`), properties...), '}'), nil)
	if err != nil {
		t.Fatalf("%s: %v", properties, err)
	}
	return h
}

// value is the exact value of a JSON number with a small exponent.
func value(number string) (*big.Rat, bool) {
	if number == "" || !strings.ContainsRune("-0123456789", rune(number[0])) || !json.Valid([]byte(number)) || len(number) > 200 {
		return nil, false
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(number), "e"); ok && len(strings.TrimLeft(exponent, "+-")) > 3 {
		return nil, false
	}
	return new(big.Rat).SetString(number)
}

// reverseKeys writes the top object's members in the opposite order; ok is false where there is none, or
// where a key comes twice and order has a meaning.
func reverseKeys(object []byte) (reversed []byte, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	var members []string
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil || seen[key.(string)] {
			return nil, false
		}
		seen[key.(string)] = true
		name, err := json.Marshal(key)
		if err != nil {
			return nil, false
		}
		members = append([]string{string(name) + ":" + string(v)}, members...)
	}
	return []byte("{" + strings.Join(members, ",") + "}"), true
}
