package collector_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	contract "defenderiot/proto"
	"defenderiot/services/collector"
	"defenderiot/services/fetcher"
	"defenderiot/services/simulator"
)

// Letters of every stage are listed, tried again where they failed, and dropped, on a running collector.
func TestDeadLetters(t *testing.T) {
	s := newSite(t, simulator.Options{KeepFrames: true})
	t.Chdir(s.dir)
	did := false
	s.carry("", 3, func() bool {
		if !did {
			did = true
			s.deadLetters()
		}
		return true
	})
	if !did {
		t.Error("nothing was tried")
	}
}

func (s *site) deadLetters() {
	t, b := s.t, s.bus()
	source := contract.Source{Input: "defender_for_iot", InputID: "23453", Service: fetcher.ServiceName}
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	envelope := func(id string) []byte {
		e := contract.Envelope{
			Row: fmt.Appendf(nil, `{"id":%q}`, id), Hash: contract.HashIdentity(id), HashVersion: contract.HashVersion, AlertID: id, EventTime: day,
			Source: source, Generation: 1, PullStart: day, FetchTime: day, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
		}
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	claim := func(id string, sequence uint64) {
		subject := contract.BucketSubject(contract.BucketHashes, contract.HashKey(source, 1, contract.HashIdentity(id)))
		m := bus.Message{Subject: subject, Data: contract.Claim{RawSequence: sequence}.Encode(), ExpectEmpty: true}
		if err := b.PublishBatch(t.Context(), contract.BucketStream(contract.BucketHashes), []bus.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	letter := func(stage, output, id, reason string, sequence, claim uint64, payload []byte) {
		stream := map[string]string{contract.StageDedup: contract.StreamRaw, contract.StageSender: contract.StreamUnique}[stage]
		d := contract.DeadLetter{
			Stage: stage, Output: output, AlertID: id, Reason: reason, Attempts: 2, First: day, Last: day.Add(time.Hour), Stream: stream, Sequence: sequence, Claim: claim, Payload: payload,
		}
		if err := b.DeadLetter(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	run := func(code int, args []string, texts ...string) string {
		t.Helper()
		out, errs, got := s.command(t.Context(), append([]string{"dead"}, args...)...)
		if got != code {
			t.Errorf("dead %v: exit code %d, want %d:\n%s%s", args, got, code, out, errs)
		}
		for _, text := range texts {
			if !strings.Contains(out+errs, text) {
				t.Errorf("dead %v: no %q in\n%s%s", args, text, out, errs)
			}
		}
		return out
	}
	arrived := func(id string) (n int) {
		for _, f := range s.Devo.Frames() {
			if bytes.Contains(f, fmt.Appendf(nil, `{"id":%q`, id)) {
				n++
			}
		}
		return n
	}
	run(0, []string{"list"}, "no dead letters")

	claim("own", 7001)
	claim("another's", 7002)
	claim("again", 7006)
	claim("junk", 7004)
	letter(contract.StageSender, "devo_1", "/x/sent", "no frame", 1, 0, envelope("sent"))
	letter(contract.StageDedup, "", "/x/own", "claim unreadable", 7001, 0, envelope("own"))
	letter(contract.StageDedup, "", "/x/again", "two crashes", 7005, 7006, envelope("again"))
	letter(contract.StageDedup, "", "/x/another's", "claim unreadable", 7003, 0, envelope("another's"))
	letter(contract.StageDedup, "", "", "no envelope", 7004, 0, []byte("junk"))
	letter(contract.StageSender, "gone", "/x/elsewhere", "no frame", 2, 0, []byte("junk"))
	row := fmt.Appendf(nil, `{"id":"/x/row","properties":{"startTimeUtc":%q}}`, time.Now().Add(-time.Minute).UTC().Format(time.RFC3339))
	letter(contract.StageFetcher, "", "/x/row", "too large", 0, 0, row)

	run(0, []string{"list"}, "LETTER", "sent", "no envelope", "2026-03-01T01:00:00Z")
	if out := run(0, []string{"list", "--stage", "sender"}); strings.Count(out, "\n") != 3 {
		t.Errorf("of the sender: %s", out)
	}
	if out := run(0, []string{"list", "/X/SENT"}); strings.Count(out, "\n") != 2 {
		t.Errorf("of one alert: %s", out)
	}
	var l collector.Letter
	if err := json.Unmarshal([]byte(run(0, []string{"show", "/x/sent", "--json"})), &l); err != nil || l.Letter != 1 || l.Attempts != 2 || string(l.Row) != `{"id":"sent"}` || l.Stream != "UNIQUE" {
		t.Errorf("%+v, %v", l, err)
	}
	run(0, []string{"show", "5"}, "no envelope", `"junk"`, "RAW sequence 7004")
	run(1, []string{"show", "99"}, "there is no dead letter 99", "hint: ")
	run(1, []string{"retry"}, "no letter is chosen", "hint: ")
	run(1, []string{"drop", "--stage", "devo"}, "is none of: fetcher, dedup, sender")

	run(0, []string{"retry", "--all", "--dry-run"}, "chosen  7: 1 of the fetcher, 3 of dedup, 1 of the sender, 2 that cannot be tried")
	run(1, []string{"retry", "--all"}, "stays   5: ", "stays   6: ", "3 are in RAW again", "1 are confirmed at devo_1", "1 are read again", "2 letters stay")
	if out := run(0, []string{"list"}); strings.Count(out, "\n") != 3 {
		t.Errorf("left: %s", out)
	}
	// Each once: the one whose claim is its own, but not the one that another message has claimed.
	deadline := time.Now().Add(time.Minute)
	for (arrived("own") == 0 || arrived("again") == 0 || arrived("sent") == 0) && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Second)
	if a, b, c, d := arrived("own"), arrived("sent"), arrived("another's"), arrived("again"); a != 1 || b != 1 || c != 0 || d != 1 {
		t.Errorf("arrived: own %d, sent %d, another's %d, again %d, want 1, 1, 0, 1", a, b, c, d)
	}

	run(0, []string{"drop", "--reason", "no frame", "--dry-run"}, "chosen  1")
	run(1, []string{"drop", "--all"}, "2 letters would be removed", "--yes")
	run(0, []string{"drop", "--all", "--yes"}, "dropped 2")
	run(0, []string{"list"}, "no dead letters")
	// Given up: no audit of the claims takes its alert for lost.
	subject := contract.BucketSubject(contract.BucketHashes, contract.HashKey(source, 1, contract.HashIdentity("junk")))
	found, err := b.Lookup(t.Context(), contract.BucketStream(contract.BucketHashes), []string{subject})
	if c, _ := contract.DecodeClaim(found[subject].Data); err != nil || !c.Silent || c.RawSequence != 7004 {
		t.Errorf("claim of a dropped letter: %+v, %v", c, err)
	}
}
