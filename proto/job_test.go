package proto_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"defenderiot/proto"
)

// TestJobGolden: the record's names are what other versions of the program read.
func TestJobGolden(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	j := proto.Job{
		Version: 1, ID: "0a1b2c3d4e-2", Kind: proto.JobReplay, Output: "devo_1", Stream: proto.StreamUnique, First: 3, Last: 900, Selected: 500, Bytes: 750_000, Parts: 1,
		Rate: 100, By: proto.JobByStart, From: at, To: at.Add(time.Hour), Where: []string{"id=x"}, State: proto.JobDone, Created: at, Owner: "me", Ended: at.Add(time.Minute),
		Result: &proto.JobResult{Confirmed: 490, Resent: 2, Dead: 3, Missing: 7}, Swept: true,
	}
	const golden = `{"version":1,"id":"0a1b2c3d4e-2","kind":"replay","output":"devo_1","stream":"UNIQUE","first_sequence":3,"last_sequence":900,"selected":500,"bytes":750000,"selection_parts":1,"rate":100,"by":"start","from":"2026-03-01T12:00:00Z","to":"2026-03-01T13:00:00Z","where":["id=x"],"state":"done","created":"2026-03-01T12:00:00Z","owner":"me","ended":"2026-03-01T12:01:00Z","result":{"confirmed":490,"possibly_resent":2,"dead":3,"missing":7},"swept":true}`
	data, err := j.Encode()
	if err != nil || string(data) != golden {
		t.Errorf("%s, %v", data, err)
	}
	got, err := proto.DecodeJob([]byte(golden))
	if err != nil || !reflect.DeepEqual(*got, j) {
		t.Errorf("%+v, %v", got, err)
	}
	for data, want := range map[string]error{
		`{"version":2,"id":["?"]}`: proto.ErrNewerMajor,
		`{"version":1}`:            proto.ErrMalformed,
		`null`:                     proto.ErrMalformed,
		`{"version":1,"id":"a.>","output":"o","stream":"s","state":"running"}`:           proto.ErrMalformed,
		`{"version":1,"id":"a","output":"o","stream":"s","state":"running","rate":-1}`:   proto.ErrMalformed,
		`{"version":1,"id":"a","output":"o","stream":"s","state":"running","rate":"10"}`: proto.ErrMalformed,
	} {
		if j, err := proto.DecodeJob([]byte(data)); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", data, j, err)
		}
	}
}

func TestSelectionInParts(t *testing.T) {
	var many proto.Sequences
	for i := range uint64(120_001) {
		many.AddRange(proto.Range{First: 10 * i, Last: 10*i + i%3})
	}
	for name, tt := range map[string]struct {
		set   proto.Sequences
		parts int
	}{"empty": {proto.Sequences{}, 1}, "one": {proto.SequencesOf(7), 1}, "many": {many, 3}} {
		parts, err := proto.EncodeSelection(&tt.set)
		if err != nil || len(parts) != tt.parts {
			t.Fatalf("%s: %d parts, %v", name, len(parts), err)
		}
		var got proto.Sequences
		for i := len(parts) - 1; i >= 0; i-- {
			if len(parts[i]) > 1<<20 {
				t.Errorf("%s: part %d has %d bytes", name, i, len(parts[i]))
			}
			if err := got.AddSelection(parts[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got.Len() != tt.set.Len() || len(got.Ranges()) != len(tt.set.Ranges()) {
			t.Errorf("%s: %d sequences, want %d", name, got.Len(), tt.set.Len())
		}
	}
	for _, junk := range []string{"", "x", "\x91\x01", "\x92\x02\x01", "\x92\x01\x02 "} {
		if err := new(proto.Sequences).AddSelection([]byte(junk)); !errors.Is(err, proto.ErrMalformed) {
			t.Errorf("%q: %v", junk, err)
		}
	}
}
