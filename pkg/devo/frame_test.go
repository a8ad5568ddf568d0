package devo

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/fault"

	"pgregory.net/rapid"
)

var header = Header{
	Time:        time.Date(2026, 11, 22, 20, 4, 6, 436_999_999, time.FixedZone("CET", 3600)),
	Host:        "vm",
	Tag:         "edr.microsoft_defender.iot_security.alert",
	Environment: "test",
	PullingID:   "1795374246436",
}

const head = "<14>2026-11-22 19:04:06.436 vm edr.microsoft_defender.iot_security.alert: "

func TestAppendFrame(t *testing.T) {
	bareHeader := header
	bareHeader.Environment, bareHeader.PullingID = "", ""
	onlyID := header
	onlyID.Environment = ""
	odd := header
	odd.Environment = "a\"b\\c\n\x01é\xff"
	const members = `"@devo_environment":"test","@devo_pulling_id":"1795374246436"}` + "\n"
	for name, c := range map[string]struct {
		header    Header
		row, want string
	}{
		"one line":             {header, `{"id": "1", "n": 5}`, `{"id": "1", "n": 5,` + members},
		"empty":                {header, `{}`, `{` + members},
		"empty with a break":   {header, "{\r\n}", `{` + members},
		"no members":           {bareHeader, `{"id":1}`, `{"id":1}` + "\n"},
		"no environment":       {onlyID, `{"id":1}`, `{"id":1,"@devo_pulling_id":"1795374246436"}` + "\n"},
		"indented":             {header, "{\n  \"id\": 1,\r\n\t\"a\": [\n1,\n2]\n}", "{  \"id\": 1,\t\"a\": [1,2]," + members},
		"blanks around":        {header, " \r\n\t{\"id\":1} \n", `{"id":1,` + members},
		"numbers stay":         {header, `{"a":1.50e+007,"b":-0.0,"c":123456789012345678901234567890}`, `{"a":1.50e+007,"b":-0.0,"c":123456789012345678901234567890,` + members},
		"escapes stay":         {header, `{"a":"\u00e9\n\/é\ud800"}`, `{"a":"\u00e9\n\/é\ud800",` + members},
		"twice the same name":  {header, `{"a":1,"a":2}`, `{"a":1,"a":2,` + members},
		"a brace in a string":  {onlyID, `{"a":"}"}`, `{"a":"}","@devo_pulling_id":"1795374246436"}` + "\n"},
		"odd environment":      {odd, `{}`, `{"@devo_environment":"a\"b\\c\u000a\u0001é` + "\ufffd" + `","@devo_pulling_id":"1795374246436"}` + "\n"},
		"other line separator": {bareHeader, "{\"a\":\"\u2028\u0085\x7f\"}", "{\"a\":\"\u2028\u0085\x7f\"}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := AppendFrame([]byte("before"), c.header, []byte(c.row))
			if err != nil {
				t.Fatal(err)
			}
			if want := "before" + head + c.want; string(got) != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestAppendFrameRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1)
	for name, row := range map[string]string{
		"nothing": "", "blanks": " \n", "array": `[1]`, "string": `"a"`, "number": `1`, "null": `null`,
		"two objects": `{}{}`, "something behind": `{}x`, "cut": `{"a":1`, "cut in a string": `{"a":"b`, "cut in an escape": `{"a":"\`,
		"raw line feed in a string": "{\"a\":\"b\nc\"}", "raw carriage return in a string": "{\"a\":\"b\rc\"}",
		"raw tab in a string": "{\"a\":\"b\tc\"}", "raw zero in a string": "{\"a\":\"\x00\"}", "raw break in a name": "{\"a\nb\":1}",
		"zero between tokens": "{\x00}", "vertical tab between tokens": "{\v}", "no UTF-8": "{\"a\":\"\xff\"}", "byte order mark": "\ufeff{}",
		"bad escape": `{"a":"\x"}`, "bad hex": `{"a":"\u12g4"}`, "leading zero": `{"a":01}`, "bare minus": `{"a":-}`, "bare point": `{"a":1.}`,
		"bare exponent": `{"a":1e}`, "plus": `{"a":+1}`, "trailing comma": `{"a":1,}`, "no colon": `{"a" 1}`, "no value": `{"a":}`,
		"crossed": `{"a":[}]`, "wrong word": `{"a":nul}`, "too deep": deep, "break in a word": "{\"a\":tr\nue}",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := AppendFrame([]byte("before"), header, []byte(row))
			if !fault.IsPermanent(err) {
				t.Errorf("error = %v, want a permanent one", err)
			}
			if string(got) != "before" {
				t.Errorf("dst became %q", got)
			}
		})
	}
}

func TestHeaderValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Header)
		ok     bool
	}{
		"good":           {func(*Header) {}, true},
		"longest tag":    {func(h *Header) { h.Tag = strings.Repeat("a", 1024) }, true},
		"IPv6 host":      {func(h *Header) { h.Host = "::1" }, true},
		"too long a tag": {func(h *Header) { h.Tag = strings.Repeat("a", 1025) }, false},
		"no tag":         {func(h *Header) { h.Tag = "" }, false},
		"colon in tag":   {func(h *Header) { h.Tag = "a: b" }, false},
		"break in tag":   {func(h *Header) { h.Tag = "a\nb" }, false},
		"no ASCII":       {func(h *Header) { h.Tag = "é" }, false},
		"no host":        {func(h *Header) { h.Host = "" }, false},
		"space in host":  {func(h *Header) { h.Host = "a b" }, false},
		"control":        {func(h *Header) { h.Host = "a\x7fb" }, false},
		"long host":      {func(h *Header) { h.Host = strings.Repeat("a", 256) }, false},
		"year 10000":     {func(h *Header) { h.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := header
			c.change(&h)
			if err := h.Validate(); (err == nil) != c.ok {
				t.Errorf("Validate = %v", err)
			}
			if _, err := AppendFrame(nil, h, []byte("{}")); fault.IsPermanent(err) == c.ok {
				t.Errorf("AppendFrame = %v", err)
			}
		})
	}
}

// TestGolden pins the bytes of whole frames: NAME.json and what is sent for it, NAME.frame.
func TestGolden(t *testing.T) {
	rows, err := filepath.Glob("testdata/*.json")
	must(t, err)
	if len(rows) == 0 {
		t.Fatal("no testdata")
	}
	for _, path := range rows {
		t.Run(filepath.Base(path), func(t *testing.T) {
			row, err := os.ReadFile(path)
			must(t, err)
			want, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".frame")
			must(t, err)
			got, err := AppendFrame(nil, header, row)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// checkFrame checks everything a frame promises for a row that encoding/json takes.
func checkFrame(t interface {
	Helper()
	Fatalf(string, ...any)
}, h Header, row, frame []byte) {
	t.Helper()
	if i := bytes.IndexByte(frame, '\n'); i != len(frame)-1 || bytes.IndexByte(frame, '\r') >= 0 {
		t.Fatalf("not one line: %q", frame)
	}
	body, ok := strings.CutPrefix(string(frame), "<14>"+h.Time.UTC().Format("2006-01-02 15:04:05.000")+" "+h.Host+" "+h.Tag+": ")
	if !ok {
		t.Fatalf("head of %q", frame)
	}
	want, got := decode(t, row), decode(t, []byte(body))
	if h.Environment != "" {
		want["@devo_environment"] = strings.ToValidUTF8(h.Environment, "\ufffd")
	}
	if h.PullingID != "" {
		want["@devo_pulling_id"] = strings.ToValidUTF8(h.PullingID, "\ufffd")
	}
	// ToValidUTF8 makes one mark of a run of bad bytes.
	for _, k := range []string{"@devo_environment", "@devo_pulling_id"} {
		for _, m := range []map[string]any{want, got} {
			if s, ok := m[k].(string); ok {
				m[k] = squeeze(s)
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("meaning changed: %q became %q", row, body)
	}
	// The row's own bytes, but for blanks between tokens, come first.
	var tight, tightBody bytes.Buffer
	if json.Compact(&tight, row) != nil || json.Compact(&tightBody, []byte(body)) != nil {
		t.Fatalf("not compactable: %q", body)
	}
	if !bytes.HasPrefix(tightBody.Bytes(), tight.Bytes()[:tight.Len()-1]) {
		t.Fatalf("bytes changed: %q became %q", row, body)
	}
}

func squeeze(s string) string {
	for strings.Contains(s, "\ufffd\ufffd") {
		s = strings.ReplaceAll(s, "\ufffd\ufffd", "\ufffd")
	}
	return s
}

func decode(t interface {
	Helper()
	Fatalf(string, ...any)
}, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}

func FuzzAppendFrame(f *testing.F) {
	for _, row := range []string{`{}`, `{"id": "1", "n": [1.5e3, true, null]}`, "{\r\n \"a\":\t\"b\\n\"\n}", "{\"a\":\"\n\"}", `[]`, `{}{}`, "{\"a\":\"\xff\"}", `{"a":-0.1E-2}`} {
		f.Add([]byte(row), "prod", "1795374246436")
	}
	f.Add([]byte(`{"@devo_pulling_id":1}`), "\"\n\x00\xff\xfe", "")
	f.Fuzz(func(t *testing.T, row []byte, environment, id string) {
		h := header
		h.Environment, h.PullingID = environment, id
		frame, err := AppendFrame(nil, h, row)
		legal := json.Valid(row) && utf8.Valid(row) && bytes.HasPrefix(bytes.TrimLeft(row, " \t\r\n"), []byte("{"))
		switch {
		case legal != (err == nil):
			t.Fatalf("%q: encoding/json says %v, AppendFrame %v", row, legal, err)
		case err != nil:
			if !fault.IsPermanent(err) || len(frame) != 0 {
				t.Fatalf("frame %q, error %v", frame, err)
			}
		default:
			checkFrame(t, h, row, frame)
		}
	})
}

// Whatever blanks stand between the tokens of whatever object, the frame means the same.
func TestFrameKeepsMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := "{" + members(t, 0) + "}"
		frame, err := AppendFrame(nil, header, []byte(row))
		if err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		checkFrame(t, header, []byte(row), frame)
	})
}

func blanks(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{" ", "\n", "\r", "\t", "\r\n"}), 0, 3).Draw(t, "blanks"), "")
}

func members(t *rapid.T, depth int) string {
	out := blanks(t)
	for i := range rapid.IntRange(0, 3).Draw(t, "members") {
		if i > 0 {
			out += "," + blanks(t)
		}
		out += quoted(t) + blanks(t) + ":" + blanks(t) + value(t, depth) + blanks(t)
	}
	return out
}

func quoted(t *rapid.T) string {
	text, err := json.Marshal(rapid.String().Draw(t, "text"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func value(t *rapid.T, depth int) string {
	kinds := 4
	if depth > 3 {
		kinds = 2
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return quoted(t)
	case 1:
		return rapid.SampledFrom([]string{"0", "-1.50", "1e400", "12345678901234567890", "true", "false", "null"}).Draw(t, "word")
	case 2:
		return "{" + members(t, depth+1) + "}"
	}
	out := "[" + blanks(t)
	for i := range rapid.IntRange(0, 3).Draw(t, "elements") {
		if i > 0 {
			out += "," + blanks(t)
		}
		out += value(t, depth+1) + blanks(t)
	}
	return out + "]"
}

// alert is a row of 1.5 KB.
func alert() []byte {
	return []byte(`{"id":"/subscriptions/00000000-0000-0000-0000-000000000001/providers/microsoft.iotsecurity/locations/westeurope/devicegroups/site/alerts/1","name":"1",` +
		`"type":"microsoft.iotsecurity/locations/devicegroups/alerts","properties":{"severity":"High","n":17,"open":true,"description":"` + strings.Repeat("A device talked to another one. ", 38) + `"}}`)
}

func BenchmarkAppendFrame(b *testing.B) {
	lines := alert()
	var indented bytes.Buffer
	if err := json.Indent(&indented, lines, "", "  "); err != nil {
		b.Fatal(err)
	}
	for name, row := range map[string][]byte{"line": lines, "indented": indented.Bytes()} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 4096)
			b.SetBytes(int64(len(row)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := AppendFrame(dst, header, row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAppendFrameAllocatesNothing(t *testing.T) {
	dst, row := make([]byte, 0, 4096), alert()
	if n := testing.AllocsPerRun(100, func() { _, _ = AppendFrame(dst, header, row) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
