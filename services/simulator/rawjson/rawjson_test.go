package rawjson_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"defenderiot/services/simulator/rawjson"
)

func TestMember(t *testing.T) {
	tests := []struct {
		name, object, key, want string
		ok                      bool
	}{
		{"first", `{"id":"a","b":1}`, "id", `"a"`, true},
		{"last", `{"b":{"id":"no"},"id":"yes"}`, "id", `"yes"`, true},
		{"nested is not top level", `{"b":{"id":"no"}}`, "id", "", false},
		{"indented", "{\n\t\"b\" : [1, 2],\r\n \"id\" :\t\"x\"\n}", "id", `"x"`, true},
		{"number keeps its digits", `{"n":9007199254740993}`, "n", "9007199254740993", true},
		{"number keeps its form", `{"n":1.0}`, "n", "1.0", true},
		{"brace in a string", `{"a":"}{\"","id":"x"}`, "id", `"x"`, true},
		{"backslash before quote", `{"a":"\\","id":"x"}`, "id", `"x"`, true},
		{"escaped key", `{"\u0069d":"x"}`, "id", `"x"`, true},
		{"null", `{"tags":null}`, "tags", "null", true},
		{"empty object", `{}`, "id", "", false},
		{"array", `[1]`, "id", "", false},
		{"cut", `{"a":"b`, "a", "", false},
		{"empty", ``, "a", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := rawjson.Member([]byte(tt.object), tt.key)
			if ok != tt.ok || string(got) != tt.want {
				t.Errorf("Member(%s, %q) = %q, %v; want %q, %v", tt.object, tt.key, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestElement(t *testing.T) {
	array := []byte(`[ "a", {"b":[2]} , 3]`)
	for n, want := range []string{`"a"`, `{"b":[2]}`, "3"} {
		if got, ok := rawjson.Element(array, n); !ok || string(got) != want {
			t.Errorf("Element(%d) = %q, %v; want %q", n, got, ok, want)
		}
	}
	for _, n := range []int{-1, 3} {
		if got, ok := rawjson.Element(array, n); ok {
			t.Errorf("Element(%d) = %q, want none", n, got)
		}
	}
}

// FuzzMembers holds the walk against encoding/json: whatever is a valid object
// must give the same members, whatever is not must not run out of the slice.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a"}`, `{"a":{"b":[1,{"c":"}"}]},"id":"\"\\"}`, "{\n \"a\" : 1e3 ,\t\"b\":null}",
		`{"a":`, `{"a":"\`, `{"a":[}`, `{}`, `[]`, `{"a":1,"a":2}`, `{"\u0061":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got []json.RawMessage
		var names []string
		ok := rawjson.Members(text, func(name, value []byte) bool {
			var s string
			quoted := append(append([]byte{'"'}, name...), '"')
			if json.Unmarshal(quoted, &s) != nil {
				s = "?"
			}
			names = append(names, s)
			got = append(got, json.RawMessage(value))
			return true
		})
		var want map[string]json.RawMessage
		if json.Unmarshal(text, &want) != nil || !rawjson.IsObject(text) {
			return
		}
		if !ok {
			t.Fatalf("a valid object was not walked: %q", text)
		}
		last := map[string]json.RawMessage{}
		for i, name := range names {
			last[name] = got[i]
		}
		if len(last) != len(want) {
			t.Fatalf("%q: %d members, want %d", text, len(last), len(want))
		}
		for name, value := range want {
			if !bytes.Equal(last[name], value) {
				t.Fatalf("%q: member %q is %q, want %q", text, name, last[name], value)
			}
		}
	})
}
