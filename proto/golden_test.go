package proto_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"defenderiot/proto"
)

var update = flag.Bool("update", false, "write the golden files from today's encoders")

var (
	pull  = time.Date(2026, 3, 1, 12, 30, 0, 250_000_000, time.UTC)
	start = time.Date(2023, 10, 1, 9, 1, 0, 0, time.UTC)
	iot   = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}
)

const row = `{"id":"/subscriptions/00000000-0000-0000-0000-000000000001/providers/Microsoft.IoTSecurity/locations/westeurope/deviceGroups/Plant/alerts/A1",` +
	`"properties":{"severity":"High","count":9007199254740993,"ratio":1.50,"text":"\u00e9 – é"}}`

func fullEnvelope() *proto.Envelope {
	return &proto.Envelope{
		Row: []byte(row), Hash: proto.HashIdentity("/A1"), HashVersion: proto.HashVersion,
		OtherHashes: []string{proto.HashIdentity("/a1/old"), proto.HashIdentity("/a1/older")},
		AlertID:     "/a1", EventTime: start, Source: iot, Scope: "00000000-0000-0000-0000-000000000001",
		PullingID: pull.UnixMilli(), PullStart: pull, Generation: 3, FetchTime: pull.Add(1234567 * time.Nanosecond),
		Host: "collector-1", Tag: "edr.microsoft_defender.iot_security.alert", Environment: "prod", ClaimOnly: true,
		Major: proto.SchemaMajor, Minor: proto.SchemaMinor,
	}
}

// smallEnvelope has every optional field left out.
func smallEnvelope() *proto.Envelope {
	e := fullEnvelope()
	e.OtherHashes, e.EventTime, e.Environment, e.ClaimOnly, e.Scope = nil, time.Time{}, "", false, ""
	return e
}

func edgeEnvelope() *proto.Envelope {
	e := smallEnvelope()
	e.Generation, e.PullingID = math.MaxUint64, -1
	e.Row = bytes.Repeat([]byte("x"), 70_000) // beyond the 16-bit length
	e.AlertID = strings.Repeat("é", 40)
	e.EventTime = time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	return e
}

func fullLedger() *proto.Ledger {
	written, confirmed := proto.SequencesOf(205, 206, 207, 300), proto.SequencesOf(203, 250)
	confirmed.AddRange(proto.Range{First: math.MaxUint64 - 1, Last: math.MaxUint64})
	return &proto.Ledger{
		Instance: "collector-1/42", Updated: pull, Floor: 201, Written: written, Confirmed: confirmed, Proof: proto.ProofUnproved,
		Counters: proto.Counters{Confirmed: 203, Resent: 4, Dead: 1, Rotations: 70_000, Unclean: math.MaxUint64},
	}
}

func fullDeadLetter() *proto.DeadLetter {
	return &proto.DeadLetter{
		Stage: proto.StageSender, Output: "devo us-1", AlertID: "/a1", Reason: "frame of 20,000,000 bytes", Attempts: 2,
		First: pull, Last: pull.Add(time.Minute), Stream: proto.StreamUnique, Sequence: 4711, Payload: []byte{0, 1, 0xff},
	}
}

func fullCheckpoint() *proto.Checkpoint {
	return &proto.Checkpoint{
		PersistenceVersion: proto.PersistenceVersion, StartTime: &start, LastEventTime: pull, LastIDs: []string{"/a1", "/ä<2>"},
		Generation: 3, Floor: start, Deduplication: "version",
		Replaced:      []proto.ReplacedGeneration{{Generation: 2, ReplacedAt: pull}},
		Subscriptions: []string{"00000000-0000-0000-0000-000000000001"},
		Rescan:        []proto.Window{{From: start, To: start.Add(time.Second)}},
	}
}

type encoder interface{ Encode() ([]byte, error) }

var goldens = []struct {
	name   string
	value  encoder
	decode func([]byte) (any, error)
}{
	{"envelope-full", fullEnvelope(), decodeEnvelope},
	{"envelope-small", smallEnvelope(), decodeEnvelope},
	{"envelope-edges", edgeEnvelope(), decodeEnvelope},
	{"ledger-full", fullLedger(), decodeLedger},
	{"ledger-new", &proto.Ledger{Instance: "base", Updated: pull, Proof: proto.ProofHalfClose}, decodeLedger},
	{"deadletter-full", fullDeadLetter(), decodeDeadLetter},
	{"deadletter-again", &proto.DeadLetter{
		Stage: proto.StageDedup, Reason: "two crashes", Attempts: 2, First: pull, Last: pull.Add(time.Minute), Stream: proto.StreamRaw, Sequence: 200, Payload: []byte{0xff}, Claim: 100,
	}, decodeDeadLetter},
	{"deadletter-fetcher", &proto.DeadLetter{Stage: proto.StageFetcher, Reason: "mask", Attempts: 1, First: pull, Last: pull}, decodeDeadLetter},
	{"checkpoint-full", fullCheckpoint(), decodeCheckpoint},
	{"checkpoint-claiming", &proto.Checkpoint{
		PersistenceVersion: proto.PersistenceVersion, StartTime: &start, LastEventTime: pull, LastIDs: []string{}, Generation: 2, Floor: start,
		Claiming: &proto.Claiming{Before: pull, Through: start, KnownIn: 1, IDs: []string{"/a1"}},
	}, decodeCheckpoint},
	{"checkpoint-new", &proto.Checkpoint{
		PersistenceVersion: proto.PersistenceVersion, LastEventTime: start, Generation: 1, Floor: start,
	}, decodeCheckpoint},
}

func decodeEnvelope(b []byte) (any, error)   { return proto.DecodeEnvelope(b) }
func decodeLedger(b []byte) (any, error)     { return proto.DecodeLedger(b) }
func decodeDeadLetter(b []byte) (any, error) { return proto.DecodeDeadLetter(b) }
func decodeCheckpoint(b []byte) (any, error) { return proto.DecodeCheckpoint(b) }

// TestGolden pins the bytes: what is stored today must be read by every later version, and a replica of
// today must read what is written then.
func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			got, err := g.value.Encode()
			if err != nil {
				t.Fatal(err)
			}
			want := golden(t, g.name, got)
			if !bytes.Equal(got, want) {
				t.Errorf("the encoder writes\n%s, golden is\n%s", hex.Dump(head(got)), hex.Dump(head(want)))
			}
			back, err := g.decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, any(g.value)) {
				t.Errorf("decoded %+v\nwant %+v", back, g.value)
			}
		})
	}
}

func head(b []byte) []byte { return b[:min(len(b), 1024)] }

// golden returns the golden bytes of a case: JSON as it is, msgpack as hexadecimal.
func golden(t *testing.T, name string, today []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	text, isText := path+".json", today[0] == '{'
	if !isText {
		text = path + ".hex"
	}
	if *update {
		data := today
		if !isText {
			data = wrap(hex.EncodeToString(today))
		}
		if err := os.WriteFile(text, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(text)
	if err != nil {
		t.Fatal(err)
	}
	if isText {
		return data
	}
	raw, err := hex.DecodeString(strings.Join(strings.Fields(string(data)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func wrap(s string) []byte {
	var b bytes.Buffer
	for len(s) > 0 {
		n := min(len(s), 96)
		b.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return b.Bytes()
}

// TestNamesAreStable pins what other programs and stored keys rely on.
func TestNamesAreStable(t *testing.T) {
	odd := proto.Source{Input: "a.b", InputID: "*", Service: ""}
	for _, c := range []struct{ got, want string }{
		{proto.RawSubject(iot), "alerts.raw.defender_for_iot.23453.iot_security_alerts"},
		{proto.UniqueSubject(odd, 7, "h"), "alerts.unique.a=2Eb.=2A.=.7.h"},
		{proto.HashKey(iot, 1, "h"), "defender_for_iot.23453.iot_security_alerts.1.h"},
		{proto.DeadPrefix(proto.StageSender, "my devo"), "alerts.dead.sender.my=20devo"},
		{proto.DeadPrefix(proto.StageFetcher, ""), "alerts.dead.fetcher.="},
		{fullDeadLetter().Subject(), "alerts.dead.sender.devo=20us-1.M6ZNUhALKuglI1mzne2pfw"},
		{proto.RecordKey(iot), "record.defender_for_iot.23453.iot_security_alerts"},
		{proto.LeaseKey(iot), "lease.defender_for_iot.23453.iot_security_alerts"},
		{proto.LedgerKey("my devo", "host/1"), "my=20devo.host=2F1"},
		{proto.OutputConsumer("my devo"), "output-my=20devo"},
		{proto.BucketStream(proto.BucketHashes), "KV_hashes"},
		{proto.BucketSubject(proto.BucketHashes, "k"), "$KV.hashes.k"},
		{proto.RawMsgID(iot, 3, 1700000000000, 2, 17, "h"), "defender_for_iot.23453.iot_security_alerts/3/1700000000000/2/17/h"},
		{proto.UniqueMsgID(3, "h"), "3/h"},
		{fullDeadLetter().MsgID(), "sender/devo us-1/UNIQUE/4711"},
		{(&proto.DeadLetter{Stage: "fetcher", AlertID: "A", Payload: []byte("p")}).MsgID(), "fetcher///0/" + proto.HashIdentity("a\x00p")},
		{string(proto.Claim{RawSequence: 42}.Encode()), "42"},
		{string(proto.Claim{RawSequence: 42, Silent: true}.Encode()), "42s"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	for consumer, want := range map[string]string{"output-my=20devo": "my devo", "output-=": ""} {
		if got, ok := proto.OutputOfConsumer(consumer); !ok || got != want {
			t.Errorf("OutputOfConsumer(%q) = %q, %v", consumer, got, ok)
		}
	}
	for _, foreign := range []string{"dedup", "output", "output-", "output-a b", "output-=2a", "output-=41", "output-=2", "output-=ZZ"} {
		if got, ok := proto.OutputOfConsumer(foreign); ok {
			t.Errorf("consumer %q is taken for output %q's", foreign, got)
		}
	}
}

// TestDictionariesAreStable: one changed byte makes every packed body that is stored unreadable.
func TestDictionariesAreStable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("dictionary", "alert-1.txt"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "95365c4f618e973b7cc472c7daa3ed6a38112489652e1182f21e98764bed843c"
	if got := fmt.Sprintf("%x", sha256.Sum256(text)); got != want {
		t.Errorf("dictionary 1 has SHA-256 %s, not %s: leave it, and add another one", got, want)
	}
}
