package proto_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"defenderiot/proto"
)

type field struct {
	key   string
	value any
}

// record makes a msgpack map by hand, in the given order; a []byte of type msgpack.RawMessage goes in as
// it is.
func record(t testing.TB, fields ...field) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	if err := enc.EncodeMapLen(len(fields)); err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		if err := enc.EncodeString(f.key); err != nil {
			t.Fatal(err)
		}
		if err := enc.Encode(f.value); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var (
	// A map of one field: r, the row {}.
	envelopeBody   = []byte{0x81, 0xa1, 'r', 0xc4, 2, '{', '}'}
	envelopeFields = []field{
		{"v", 1}, {"m", 0}, {"h", proto.HashIdentity("/a1")}, {"hv", 1}, {"in", "i"}, {"ii", "1"}, {"sv", "s"}, {"g", 1}, {"d", 0}, {"b", envelopeBody},
	}
	ledgerFields     = []field{{"v", 1}, {"in", "host"}, {"fl", 7}, {"wr", []int{8, 9}}, {"co", []int{10, 10}}}
	deadLetterFields = []field{{"v", 1}, {"st", "dedup"}, {"pa", []byte("x")}}
)

var kinds = []struct {
	name     string
	fields   []field
	required []string
	decode   func([]byte) (any, error)
}{
	{"envelope", envelopeFields, []string{"v", "h", "in", "sv", "g", "b"}, decodeEnvelope},
	{"ledger", ledgerFields, []string{"v", "in"}, decodeLedger},
	{"deadletter", deadLetterFields, []string{"v", "st"}, decodeDeadLetter},
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	later := []field{
		{"zz1", map[string]any{"a": []any{1, "b", nil, map[string]any{"c": 1.5}}}}, {"zz2", bytes.Repeat([]byte("x"), 70_000)},
		{"zz3", time.Now()}, {"zz4", nil}, {"zz5", uint64(math.MaxUint64)}, {"", "the empty key"},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			plain, err := k.decode(record(t, k.fields...))
			if err != nil {
				t.Fatal(err)
			}
			for _, fields := range [][]field{append(append([]field{}, later...), k.fields...), append(append([]field{}, k.fields...), later...)} {
				got, err := k.decode(record(t, fields...))
				if err != nil || !reflect.DeepEqual(got, plain) {
					t.Errorf("with fields of a later minor version: %+v, %v", got, err)
				}
			}
		})
	}
}

func TestNewerMajor(t *testing.T) {
	for _, k := range kinds {
		// Every other field has a shape that this reader cannot parse.
		strange := []field{{"v", 2}}
		for _, f := range k.fields[1:] {
			strange = append(strange, field{f.key, map[string]any{"a": true}})
		}
		for name, data := range map[string][]byte{
			"same shape":    record(t, append([]field{{"v", 2}}, k.fields[1:]...)...),
			"other shapes":  record(t, strange...),
			"nothing else":  record(t, field{"v", 7}),
			"bytes after":   append(record(t, field{"v", 2}), 1, 2, 3),
			"large version": record(t, field{"v", math.MaxInt32}),
		} {
			if v, err := k.decode(data); !errors.Is(err, proto.ErrNewerMajor) || errors.Is(err, proto.ErrMalformed) {
				t.Errorf("%s, %s: %v, %v", k.name, name, v, err)
			}
		}
	}
	for name, data := range map[string]string{
		"same shape":   `{"@persistence_version":2,"generation":1,"last_event_time_in_utc":"2026-01-01T00:00:00Z"}`,
		"other shapes": `{"generation":"three","last_event_time_in_utc":["?"],"last_ids":{"a":1},"@persistence_version":2}`,
	} {
		if v, err := proto.DecodeCheckpoint([]byte(data)); !errors.Is(err, proto.ErrNewerMajor) || errors.Is(err, proto.ErrMalformed) {
			t.Errorf("checkpoint, %s: %v, %v", name, v, err)
		}
	}
}

func TestMissingFieldsAreMalformed(t *testing.T) {
	for _, k := range kinds {
		for _, missing := range k.required {
			var rest []field
			for _, f := range k.fields {
				if f.key != missing {
					rest = append(rest, f)
				}
			}
			if len(rest) == len(k.fields) {
				t.Fatalf("%s has no field %q", k.name, missing)
			}
			if v, err := k.decode(record(t, rest...)); !errors.Is(err, proto.ErrMalformed) {
				t.Errorf("%s without %q: %v, %v", k.name, missing, v, err)
			}
		}
	}
	for _, data := range []string{
		`{}`, `null`, `[]`, ``, `{"@persistence_version":1`, `{"@persistence_version":1} x`,
		`{"generation":1,"last_event_time_in_utc":"2026-01-01T00:00:00Z"}`,
		`{"@persistence_version":1,"last_event_time_in_utc":"2026-01-01T00:00:00Z"}`,
		`{"@persistence_version":1,"generation":1}`,
		`{"@persistence_version":1,"generation":1,"last_event_time_in_utc":"yesterday"}`,
		`{"@persistence_version":"1","generation":1,"last_event_time_in_utc":"2026-01-01T00:00:00Z"}`,
	} {
		if v, err := proto.DecodeCheckpoint([]byte(data)); !errors.Is(err, proto.ErrMalformed) {
			t.Errorf("checkpoint %s: %v, %v", data, v, err)
		}
	}
}

func TestJunkIsMalformed(t *testing.T) {
	deep := msgpack.RawMessage(append(bytes.Repeat([]byte{0x91}, 8<<20), 0xc0))
	deepMap := msgpack.RawMessage(append(bytes.Repeat([]byte{0x81, 0xc0}, 4<<20), 0xc0))
	for _, k := range kinds {
		whole := record(t, k.fields...)
		junk := map[string][]byte{
			"empty": {}, "nil": {0xc0}, "text": []byte("hello"), "json": []byte(`{"v":1}`), "list": {0x91, 1},
			"bytes after the end": append(bytes.Clone(whole), 0),
			"a huge map":          {0xdf, 0xff, 0xff, 0xff, 0xff},
			"a huge text":         {0x81, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'},
			"a number as key":     {0x81, 1, 1},
			"version as text":     record(t, append([]field{{"v", "1"}}, k.fields[1:]...)...),
			"deep lists":          record(t, append([]field{{"zz", deep}}, k.fields...)...),
			"deep maps":           record(t, append([]field{{"zz", deepMap}}, k.fields...)...),
			"an ill-formed code":  record(t, append([]field{{"zz", msgpack.RawMessage{0xc1}}}, k.fields...)...),
		}
		for n := 1; n < len(whole); n++ {
			junk[fmt.Sprintf("cut after %d of %d bytes", n, len(whole))] = whole[:n]
		}
		for name, data := range junk {
			if v, err := k.decode(data); !errors.Is(err, proto.ErrMalformed) {
				t.Errorf("%s, %s: %v, %v", k.name, name, v, err)
			}
		}
	}
}

// TestEnvelopeBody: what is wrong with a body is found by who reads it, and by nobody else.
func TestEnvelopeBody(t *testing.T) {
	row := field{"r", []byte("{}")}
	for _, c := range []struct {
		name       string
		dictionary int
		body       []byte
		want       error
	}{
		{"plain", 0, record(t, row), nil},
		{"of a later minor version", 0, record(t, field{"zz", []any{1}}, row), nil},
		{"no map", 0, []byte("hello"), proto.ErrMalformed},
		{"without a row", 0, record(t, field{"id", "/a1"}), proto.ErrMalformed},
		{"bytes after the end", 0, append(record(t, row), 0), proto.ErrMalformed},
		{"said to be packed", 1, record(t, row), proto.ErrMalformed},
		{"a huge length", 1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, proto.ErrMalformed},
		{"packed with a dictionary of a later version", 2, record(t, row), proto.ErrNewerMajor},
	} {
		data := record(t, append(append([]field{}, envelopeFields...), field{"d", c.dictionary}, field{"b", c.body})...)
		if e, err := proto.DecodeEnvelope(data); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
		if e, err := new(proto.EnvelopeReader).ReadHead(data); err != nil || e.Hash != proto.HashIdentity("/a1") {
			t.Errorf("%s, head: %+v, %v", c.name, e, err)
		}
	}
}

func TestEnvelopeHashesAreSubjectTokens(t *testing.T) {
	good := proto.HashIdentity("/a1")
	for _, bad := range []string{"*", ">", "x", strings.Repeat("a", 21), strings.Repeat("a", 23), strings.Repeat("a", 21) + ".", strings.Repeat("a", 21) + "*"} {
		for _, f := range []field{{"h", bad}, {"oh", []string{good, bad}}} {
			fields := append(append([]field{}, envelopeFields...), f)
			if e, err := proto.DecodeEnvelope(record(t, fields...)); !errors.Is(err, proto.ErrMalformed) {
				t.Errorf("%s %q: %v, %v", f.key, bad, e, err)
			}
		}
	}
}

// TestDecodedEnvelopeSharesOnlyItsRow: everything but Row is a copy.
func TestDecodedEnvelopeSharesOnlyItsRow(t *testing.T) {
	data, err := fullEnvelope().Encode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := proto.DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	e.Row = bytes.Clone(e.Row)
	clear(data)
	if !reflect.DeepEqual(e, fullEnvelope()) {
		t.Errorf("the message's buffer was used again and changed the envelope: %+v", e)
	}
}

// TestEnvelopeReader: nothing of one envelope shows in another that the same reader reads.
func TestEnvelopeReader(t *testing.T) {
	var messages [][]byte
	for _, e := range []*proto.Envelope{fullEnvelope(), smallEnvelope(), edgeEnvelope()} {
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, data, data[:len(data)-1], record(t, field{"v", 2}))
	}
	messages = append(messages, record(t, envelopeFields...), []byte("junk"))
	var r proto.EnvelopeReader
	for _, before := range messages {
		for _, data := range messages {
			_, _ = r.Read(before)
			got, err := r.Read(data)
			want, wantErr := proto.DecodeEnvelope(data)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v, %v; want %+v, %v", got, err, want, wantErr)
			}
		}
	}
}

// TestTimesThatDoNotFit: sensors report years that 64 bits of nanoseconds cannot hold.
func TestTimesThatDoNotFit(t *testing.T) {
	first, last := time.Unix(0, math.MinInt64).UTC(), time.Unix(0, math.MaxInt64).UTC()
	for _, c := range []struct{ in, want time.Time }{
		{time.Time{}, time.Time{}},
		{time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{first.Add(1), first.Add(1)},
		{time.Unix(0, 0).UTC(), time.Unix(0, 0).UTC()},
		{last, last},
		{last.Add(1), last},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), last},
	} {
		e := fullEnvelope()
		e.EventTime, e.PullStart, e.FetchTime = c.in, c.in, c.in
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := proto.DecodeEnvelope(data)
		if err != nil {
			t.Fatal(err)
		}
		for name, at := range map[string]time.Time{"event": got.EventTime, "pull start": got.PullStart, "fetch": got.FetchTime} {
			if !at.Equal(c.want) {
				t.Errorf("%s time %s came back as %s", name, c.in, at)
			}
		}
	}
}

func TestClaim(t *testing.T) {
	for _, seq := range []uint64{1, 42, math.MaxUint64} {
		for _, silent := range []bool{false, true} {
			want := proto.Claim{RawSequence: seq, Silent: silent}
			if c, err := proto.DecodeClaim(want.Encode()); err != nil || c != want {
				t.Errorf("%v: %v, %v", want, c, err)
			}
		}
	}
	for _, bad := range []string{"", "s", "12ss", "s12", "x", "12x", "1 2", " 1", "1\n", "-1", "+1", "0x1", "1_0", "18446744073709551616"} {
		if c, err := proto.DecodeClaim([]byte(bad)); !errors.Is(err, proto.ErrMalformed) {
			t.Errorf("%q: %v, %v", bad, c, err)
		}
	}
}
