package proto_test

import (
	"strings"
	"testing"

	"defenderiot/proto"
)

// The claim of a row is found by its message's subject and Nats-Msg-Id, without its envelope.
func TestRawClaimKey(t *testing.T) {
	source := proto.Source{Input: "defender for/iot", InputID: "23453", Service: "iot_security_alerts"}
	hash := proto.HashIdentity("an alert")
	subject, id := proto.RawSubject(source), proto.RawMsgID(source, 3, 1700000000000, 2, 17, hash)
	if key, ok := proto.RawClaimKey(subject, id); !ok || key != proto.HashKey(source, 3, hash) {
		t.Errorf("%q, %v, want %q", key, ok, proto.HashKey(source, 3, hash))
	}
	for name, tt := range map[string][2]string{
		"no id":          {subject, ""},
		"a retry":        {subject, "again/" + id},
		"another source": {subject + "x", id},
		"not of RAW":     {strings.Replace(subject, "raw", "dead", 1), id},
		"no hash":        {subject, strings.TrimSuffix(id, "/"+hash)},
		"a wildcard":     {subject, strings.TrimSuffix(id, hash) + strings.Repeat(">", len(hash))},
		"no generation":  {subject, strings.Replace(id, "/3/", "/*/", 1)},
	} {
		if key, ok := proto.RawClaimKey(tt[0], tt[1]); ok {
			t.Errorf("%s: %q", name, key)
		}
	}
}

// A message that was put into RAW again keeps the claim of the first one, in its letter, too.
func TestClaimedSequence(t *testing.T) {
	for name, tt := range map[string]struct {
		letter proto.DeadLetter
		want   uint64
	}{
		"first":       {proto.DeadLetter{Stage: proto.StageDedup, Stream: proto.StreamRaw, Sequence: 100}, 100},
		"again":       {proto.DeadLetter{Stage: proto.StageDedup, Stream: proto.StreamRaw, Sequence: 200, Claim: 100}, 100},
		"of a sender": {proto.DeadLetter{Stage: proto.StageSender, Stream: proto.StreamUnique, Sequence: 100}, 0},
		"of a row":    {proto.DeadLetter{Stage: proto.StageFetcher, Sequence: 1}, 0},
	} {
		if got := tt.letter.Claimed(); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
