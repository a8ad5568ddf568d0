package resourcegraph

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/fault"
)

// The files in testdata/page are answers; what is expected of each stands here.
func TestDecode(t *testing.T) {
	start := time.Date(2026, 11, 20, 9, 58, 41, 127_000_000, time.UTC)
	const id = "/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/providers/microsoft.iotsecurity/locations/eastus/devicegroups/default/alerts/3f6c5a0e"
	good := Row{ID: id, Subscription: "20ff7fc3-e762-44dd-bd96-b71116dcdc23", Start: start}
	for file, want := range map[string]Page{
		"one-row":                 {Rows: []Row{good}, Count: 1, Total: 386, SkipToken: "eyAibm8iOi"},
		"indented-and-bom":        {Rows: []Row{good}, Count: 1, Total: 1},
		"empty":                   {Count: 0, Total: 0},
		"counts-missing":          {Rows: []Row{good}, Count: 1, Total: -1},
		"null-token":              {Count: 0, Total: 0},
		"truncated":               {Count: 0, Total: 5000, Truncated: true},
		"truncated-unknown-word":  {Count: 0, Total: 5000, Truncated: true},
		"repeated-keys":           {Rows: []Row{good}, Count: 1, Total: 1},
		"escaped-keys":            {Rows: []Row{good}, Count: 1, Total: 1},
		"keys-in-another-case":    {Rows: []Row{{Err: os.ErrInvalid}}, Count: 1, Total: 1},
		"rows-that-are-no-alerts": {Rows: []Row{{Err: os.ErrInvalid}, {Err: os.ErrInvalid}, {Err: os.ErrInvalid}, {Err: os.ErrInvalid}, {Err: os.ErrInvalid}, good, {Err: os.ErrInvalid}, {Err: os.ErrInvalid}}, Count: 8, Total: 8},
		"starts-that-are-none":    {Rows: []Row{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}, {ID: "e"}}, Count: 5, Total: 5},
	} {
		t.Run(file, func(t *testing.T) {
			body := read(t, file)
			got, err := decode(body)
			if err != nil {
				t.Fatal(err)
			}
			if got.Count != want.Count || got.Total != want.Total || got.Truncated != want.Truncated || got.SkipToken != want.SkipToken || got.Bytes != len(body) || len(got.Rows) != len(want.Rows) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			for i, r := range got.Rows {
				w := want.Rows[i]
				if r.ID != w.ID || (r.Err != nil) != (w.Err != nil) || w.Err == nil && (!r.Start.Equal(w.Start) || r.Subscription != w.Subscription) {
					t.Errorf("row %d: got %+v, want %+v", i, r, w)
				}
				if r.Err != nil && (!fault.IsPermanent(r.Err) || strings.Contains(r.Err.Error(), "hidden")) {
					t.Errorf("row %d: error %v", i, r.Err)
				}
				if !json.Valid(r.Raw) || !bytes.Contains(body, r.Raw) {
					t.Errorf("row %d: bytes %q", i, r.Raw)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for file, want := range map[string]string{
		"bad-cut":               "broken JSON at byte",
		"bad-html":              "broken JSON at byte 1",
		"bad-two-byte-string":   "no object",
		"bad-array":             "no object",
		"bad-no-data":           `without "data"`,
		"bad-table-format":      `"data" is no array`,
		"bad-null-data":         `"data" is no array`,
		"bad-count":             "count: is no count",
		"bad-token":             "$skipToken: is no text",
		"bad-two-documents":     "broken JSON at byte",
		"bad-deep-inside-a-row": "broken JSON at byte",
	} {
		t.Run(file, func(t *testing.T) {
			p, err := decode(read(t, file))
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("got %+v, %v; want an error with %q", p, err, want)
			}
		})
	}
	t.Run("nested without end", func(t *testing.T) {
		if _, err := decode(bytes.Repeat([]byte(`[`), 8<<20)); err == nil || !strings.Contains(err.Error(), "nested deeper") {
			t.Errorf("got %v", err)
		}
	})
}

// Numbers beyond float64, key order, escapes and white space inside a row are what Azure sent.
func TestRowsKeepTheirBytes(t *testing.T) {
	rows := []string{
		`{"z":9007199254740993,"a":1.0,"id":"x","f":1e400,"h":"<&>\u003c\/ \ud83d\ude00"}`,
		"{ \"id\" : \"y\" ,\n\t\"n\": [ 1 , 2 ],\r\n \"b\": {\"$id\": \"1\", \"User Name\": \"u\"} }",
		`{"id":"` + strings.Repeat("long ", 100) + `","s":"} ] , \" \\"}`,
	}
	p, err := decode([]byte(`{"data": [ ` + strings.Join(rows, " ,\n") + ` ] }`))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range rows {
		if string(p.Rows[i].Raw) != want {
			t.Errorf("got  %s\nwant %s", p.Rows[i].Raw, want)
		}
	}
	// A caller's append to one row must not run into the next.
	_ = append(p.Rows[0].Raw, "!!!!"...)
	if string(p.Rows[1].Raw) != rows[1] {
		t.Error("appending to a row changed another one")
	}
}

func TestRowOfTenMegabytes(t *testing.T) {
	row := `{"id":"big","properties":{"startTimeUtc":"2026-11-20T09:58:41Z","x":"` + strings.Repeat("a", 10<<20) + `"}}`
	p, err := decode([]byte(`{"data":[` + row + `,{"id":"next"}]}`))
	if err != nil || len(p.Rows) != 2 || string(p.Rows[0].Raw) != row || p.Rows[0].Start.IsZero() || p.Rows[1].ID != "next" {
		t.Fatalf("%v", err)
	}
}

func TestUnusableRowIsNamedByItsGuidsOnly(t *testing.T) {
	const sub, name = "20ff7fc3-e762-44dd-bd96-b71116dcdc23", "3f6c5a0e-8f0f-4c1b-9d5b-0c2f3a5d7e11"
	p, err := decode([]byte(`{"data":[{"name":"` + name + `","subscriptionId":"` + sub + `","properties":{"x":"hidden"}},{"name":"hidden","subscriptionId":"hidden"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if text := p.Rows[0].Err.Error(); !strings.HasPrefix(text, "row 1 of the page (") || !strings.Contains(text, sub) || !strings.Contains(text, name) || !strings.HasSuffix(text, "has no id") {
		t.Error(text)
	}
	for i, r := range p.Rows {
		if strings.Contains(r.Err.Error(), "hidden") {
			t.Error(r.Err)
		}
		var u *Unusable
		want := "row " + strconv.Itoa(i+1) + " of the page (" + strconv.Itoa(len(r.Raw)) + " bytes) has no id"
		if !errors.As(r.Err, &u) || u.Anonymous() != want {
			t.Errorf("%+v, want %s", u, want)
		}
	}
}

// FuzzDecode holds decode against encoding/json: the same bodies are JSON, the rows have the same bytes,
// and each field is what a map would hold.
func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/page/*.json")
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(alertPage(2)))
	f.Add([]byte("{\"data\":[{\"id\":\"\xff\\ud800\\u0041\"}]}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decode(body)
		plain := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
		if err != nil {
			return
		}
		var envelope map[string]json.RawMessage
		var rows []json.RawMessage
		if err := json.Unmarshal(plain, &envelope); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if err := json.Unmarshal(envelope["data"], &rows); err != nil || len(rows) != len(got.Rows) {
			t.Fatalf("%d rows, encoding/json has %d (%v)", len(got.Rows), len(rows), err)
		}
		for i, r := range got.Rows {
			if !bytes.Equal(r.Raw, rows[i]) {
				t.Fatalf("row %d: %q, encoding/json has %q", i, r.Raw, rows[i])
			}
			var fields map[string]any
			if json.Unmarshal(rows[i], &fields) != nil || fields == nil {
				if r.Err == nil {
					t.Fatalf("row %d is no object and has no error", i)
				}
				continue
			}
			id, _ := fields["id"].(string)
			if usable := strings.TrimSpace(id) != "" && len(id) < maxID/8; usable && (r.Err != nil || r.ID != strings.ToLower(id)) {
				t.Fatalf("row %d: id %q (%v), encoding/json has %q", i, r.ID, r.Err, id)
			} else if strings.TrimSpace(id) == "" && r.Err == nil {
				t.Fatalf("row %d: no usable id and no error", i)
			}
			sub, _ := fields["subscriptionId"].(string)
			if r.Subscription != strings.ToLower(sub) {
				t.Fatalf("row %d: subscription %q, encoding/json has %q", i, r.Subscription, sub)
			}
			properties, _ := fields["properties"].(map[string]any)
			begin, _ := properties["startTimeUtc"].(string)
			if !r.Start.Equal(parseStart(begin)) {
				t.Fatalf("row %d: start %s, encoding/json has %q", i, r.Start, begin)
			}
		}
	})
}

// FuzzDecodeRefusal: what encoding/json takes for a page, decode takes too.
func FuzzDecodeRefusal(f *testing.F) {
	f.Add([]byte(`"x"`))
	f.Add([]byte(`{"a":[1e400,-0,"\ud800"]}`))
	f.Add([]byte("\"\x7f\xff\""))
	f.Fuzz(func(t *testing.T, value []byte) {
		body := append(append([]byte(`{"data":[`), value...), ']', '}')
		if !json.Valid(body) || !json.Valid(value) {
			return
		}
		p, err := decode(body)
		if err != nil || len(p.Rows) != 1 {
			t.Fatalf("%q: %v", body, err)
		}
	})
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", "page", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}
