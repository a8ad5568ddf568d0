package proto_test

import (
	"strings"
	"testing"

	"defenderiot/proto"
)

// typical is an envelope with a row of 1.5 KB, about what an alert takes.
func typical() *proto.Envelope {
	e := smallEnvelope()
	e.EventTime, e.Scope, e.Environment = start, "00000000-0000-0000-0000-000000000001", "prod"
	e.AlertID = strings.ToLower(row[7:150])
	e.Row = []byte(strings.Repeat("x", 1536))
	return e
}

func BenchmarkEnvelopeEncode(b *testing.B) {
	e := typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEnvelopeDecode(b *testing.B) {
	data, err := typical().Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := proto.DecodeEnvelope(data); err != nil {
			b.Fatal(err)
		}
	}
}
