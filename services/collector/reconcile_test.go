package collector_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	contract "defenderiot/proto"
	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

// Alerts are lost and held back behind the collector's back; reconcile names them, and --repair brings them.
func TestReconcile(t *testing.T) {
	s := newSite(t, simulator.Options{KeepFrames: true})
	s.Graph.Add(s.Generator.Rows(100)...)
	const n = 103 // with those that a site has
	t.Chdir(s.dir)
	s.pollEverySecond()
	did := false
	s.carry("", n, func() bool {
		if !did {
			did = true
			s.reconcile(n)
		}
		return true
	})
	if !did {
		t.Error("nothing was tried")
	}
}

func (s *site) pollEverySecond() {
	s.t.Helper()
	text, err := os.ReadFile("config.yaml")
	if err == nil {
		err = os.WriteFile("config.yaml", bytes.Replace(text, []byte("request_period_in_seconds: 10"), []byte("request_period_in_seconds: 1"), 1), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) reconcile(n int) {
	t, b := s.t, s.bus()
	ctx := t.Context()
	reconciled := func(code int, args ...string) (r collector.Reconciled) {
		t.Helper()
		out, errs, got := s.command(ctx, append([]string{"reconcile", "--from", "2000-01-01", "--to", "2100-01-01", "--json"}, args...)...)
		if got != code {
			t.Errorf("exit code %d, want %d:\n%s%s", got, code, out, errs)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v: %s%s", err, out, errs)
		}
		return r
	}
	check := func(r collector.Reconciled, want string) {
		t.Helper()
		if len(r.Outputs) != 1 {
			t.Fatalf("%+v", r.Report)
		}
		o := r.Outputs[0]
		got := fmt.Sprintf("azure %d unique %d confirmed %d waiting %d dead %d+%d silent %d unknown %d missing %d",
			r.Azure, r.Unique, o.Confirmed, o.Waiting+r.Waiting+r.Unfetched, o.Dead, r.Dead, r.Silent, r.Unknown, r.Missing)
		if got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	check(reconciled(0), "azure 103 unique 103 confirmed 103 waiting 0 dead 0+0 silent 0 unknown 0 missing 0")

	settled := func() (r collector.Reconciled) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for r = reconciled(0); (r.Unfetched+r.Waiting > 0 || r.Outputs[0].Waiting > 0) && time.Now().Before(deadline); r = reconciled(0) {
			time.Sleep(100 * time.Millisecond)
		}
		return r
	}
	// Later ones, in batches of their own: the first are older than all that UNIQUE will have, and most claims are
	// younger than its oldest message.
	const more = 51
	for i := range more {
		s.Graph.Add(s.Generator.NextAt(s.Graph.Now()))
		if i == 0 {
			check(settled(), "azure 104 unique 104 confirmed 104 waiting 0 dead 0+0 silent 0 unknown 0 missing 0")
		}
	}
	check(settled(), "azure 154 unique 154 confirmed 154 waiting 0 dead 0+0 silent 0 unknown 0 missing 0")

	// The first are beyond UNIQUE's retention, one within it is gone, one is in an output's dead letters, and one that
	// Azure shows late is not fetched yet.
	if err := b.PurgeBelow(ctx, contract.StreamUnique, uint64(n)+1); err != nil {
		t.Fatal(err)
	}
	unique, err := b.Stream(ctx, contract.StreamUnique)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := unique.GetMsg(ctx, 130)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := contract.DecodeEnvelope(gone.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := unique.DeleteMsg(ctx, 130); err != nil {
		t.Fatal(err)
	}
	letter := contract.DeadLetter{Stage: contract.StageSender, Output: "devo_1", Reason: "no frame", Attempts: 1, First: time.Now(), Last: time.Now(), Stream: contract.StreamUnique, Sequence: 140}
	if err := b.DeadLetter(ctx, letter); err != nil {
		t.Fatal(err)
	}
	late := s.Generator.NextAt(s.Graph.Now().Add(-40 * time.Minute))
	s.Graph.Add(late)
	// A letter of a message that was put into RAW again is known by the sequence that its claim names.
	subject := contract.BucketSubject(contract.BucketHashes, contract.HashKey(lost.Source, lost.Generation, lost.Hash))
	claims, err := b.Lookup(ctx, contract.BucketStream(contract.BucketHashes), []string{subject})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := contract.DecodeClaim(claims[subject].Data)
	if err != nil {
		t.Fatal(err)
	}
	again := contract.DeadLetter{Stage: contract.StageDedup, Reason: "two crashes", Attempts: 1, First: time.Now(), Last: time.Now(), Stream: contract.StreamRaw, Sequence: 99_999, Claim: claim.RawSequence}
	if err := b.DeadLetter(ctx, again); err != nil {
		t.Fatal(err)
	}
	check(reconciled(253), "azure 155 unique 50 confirmed 49 waiting 0 dead 1+1 silent 0 unknown 103 missing 1")
	if err := b.RemoveDeadLetter(ctx, 2); err != nil {
		t.Fatal(err)
	}
	r := reconciled(253)
	check(r, "azure 155 unique 50 confirmed 49 waiting 0 dead 1+0 silent 0 unknown 103 missing 2")
	for _, m := range r.Named {
		if want := map[bool]string{true: lost.AlertID, false: contract.Identity(late.ID())}[m.Lost]; contract.Identity(m.ID) != want {
			t.Errorf("%+v, want %s", m, want)
		}
	}
	out, _, code := s.command(ctx, "reconcile", "--from", "2000-01-01", "--to", "2100-01-01")
	for _, text := range []string{"missing", "(claimed, and nowhere)", "(not fetched)", "claimed, delivery no longer known           103", "confirmed 49, waiting 0, dead letters 1"} {
		if !strings.Contains(out, text) {
			t.Errorf("%d: no %q in\n%s", code, text, out)
		}
	}

	time.Sleep(3 * time.Second) // UNIQUE takes the same alert for a repeat for two seconds
	r = reconciled(253, "--repair")
	if r.Released != 1 || r.Position == nil || r.Position.After(lost.EventTime) {
		t.Errorf("repaired: %d, %v", r.Released, r.Position)
	}
	for deadline := time.Now().Add(time.Minute); s.frames(late.ID()) == 0 || s.frames(lost.AlertID) < 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the repaired alerts do not arrive")
		}
	}
	check(settled(), "azure 155 unique 52 confirmed 51 waiting 0 dead 1+0 silent 0 unknown 103 missing 0")
	// What the site looks at in the end has no gap.
	if err := b.Purge(ctx, contract.StreamUnique, contract.SubjectsUnique); err != nil {
		t.Fatal(err)
	}
	// Nothing else came again.
	if total := len(s.alertFrames()); total != n+more+2 {
		t.Errorf("%d frames, want %d", total, n+more+2)
	}
}

func (s *site) alertFrames() (frames [][]byte) {
	for _, f := range s.Devo.Frames() {
		if bytes.Contains(f, []byte("iot_security.alert: {")) {
			frames = append(frames, f)
		}
	}
	return frames
}

// frames is how many of the endpoint's frames hold an alert.
func (s *site) frames(id string) (n int) {
	for _, f := range s.alertFrames() {
		if bytes.Contains(bytes.ToLower(f), []byte(`"`+contract.Identity(id)+`"`)) {
			n++
		}
	}
	return n
}
