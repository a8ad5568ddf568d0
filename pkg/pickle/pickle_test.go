package pickle

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// read returns a file that testdata/make.py wrote.
func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".pickle"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPlainDataOfEachProtocol(t *testing.T) {
	many := make([]any, 1500)
	for i := range many {
		many[i] = int64(i)
	}
	n := func(values ...int64) []any {
		out := []any{}
		for _, v := range values {
			out = append(out, v)
		}
		return out
	}
	want := map[string]any{
		"none": nil, "true": true, "false": false,
		"ints":   n(0, 255, 65535, 65536, -1, 1<<31-1, -1<<31, 1<<31, 1<<63-1, -1<<63),
		"floats": []any{0.5, -1e300}, "text": "ä\n\\u€😀",
		"tuples": []any{n(), n(1), n(1, 2), n(1, 2, 3), n(1, 2, 3, 4)},
		"empty":  []any{map[string]any{}, []any{}, ""},
		"same":   []any{"/a", "/b"}, "same again": []any{"/a", "/b"}, "many": many,
	}
	for _, name := range []string{"plain-0", "plain-1", "plain-2", "plain-3", "plain-4", "plain-5"} {
		got, err := Load(read(t, name))
		if err != nil || !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"bytes-3", "bytes-4", "bytes-5"} {
		got, err := Load(read(t, name))
		if want := any(map[string]any{"b": []byte{0, 255}, "long": bytes.Repeat([]byte("x"), 300)}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestWhatIsSharedIsNotSharedAfterwards(t *testing.T) {
	v, err := Load(read(t, "plain-4"))
	if err != nil {
		t.Fatal(err)
	}
	d := v.(map[string]any)
	d["same"].([]any)[0] = "changed"
	if d["same again"].([]any)[0] != "/a" {
		t.Error("one change shows in two places")
	}
}

func TestRefused(t *testing.T) {
	for name, want := range map[string]error{
		"object": ErrNotPlain, "datetime": ErrNotPlain, "datetime0": ErrNotPlain, "call": ErrNotPlain, "set": ErrNotPlain,
		"huge": ErrNotPlain, "keys": ErrNotPlain, "bytes": ErrNotPlain, "itself": ErrTooLarge, "deep": ErrTooLarge, "bomb": ErrTooLarge,
	} {
		if v, err := Load(read(t, "refused-"+name)); v != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, %v; want %v", name, v, err, want)
		}
	}
	for name, data := range map[string]string{
		"nothing": "", "text": "hello", "json": `{"@persistence_version": 1}`, "no value": ".", "two values": "NN.", "a mark": "(.",
		"rest": "N.N", "operands": "a.", "no list": "NNa.", "no dict": "NNNs.", "odd pairs": "}(Nu.", "never stored": "h\x00.",
		"over a mark": "(2.", "protocol 6": "\x80\x06N.", "a frame that is not there": "\x80\x04\x95\xff\xff\xff\xff",
		"length beyond the end": "\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "half an escape": "V\\u12\n.", "a surrogate": "V\\ud800\n.",
		"latin 1": "X\x01\x00\x00\x00\xff.", "no number": "Fx\n.", "no key": "Npx\n.",
	} {
		if v, err := Load([]byte(data)); v != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for name, data := range map[string]string{
		"bytes": strings.Repeat("N", MaxBytes+1), "instructions": strings.Repeat("N", MaxValues) + ".",
	} {
		if v, err := Load([]byte(data)); v != nil || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

// A file that is written in place can be cut anywhere.
func TestCutAnywhere(t *testing.T) {
	for _, name := range []string{"plain-0", "plain-2", "plain-4"} {
		data := read(t, name)
		for n := 0; n < len(data); n += 1 + n/200 {
			if v, err := Load(data[:n]); v != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotPlain) {
				t.Fatalf("%s cut after %d bytes: %v, %v", name, n, v, err)
			}
		}
	}
}

// FuzzLoad: whatever the bytes, there is either plain data within the limits or one of the three errors.
func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.pickle")
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Load(data)
		if err != nil {
			if v != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotPlain) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%v, %v", v, err)
			}
			return
		}
		left := MaxValues
		check(t, v, 0, &left)
	})
}

func check(t *testing.T, v any, depth int, left *int) {
	if *left--; *left < 0 || depth > MaxDepth {
		t.Fatal("beyond the limits")
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string, []byte:
	case []any:
		for _, item := range v {
			check(t, item, depth+1, left)
		}
	case map[string]any:
		for _, item := range v {
			check(t, item, depth+1, left)
		}
	default:
		t.Fatalf("a %T", v)
	}
}
