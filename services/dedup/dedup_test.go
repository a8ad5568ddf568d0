package dedup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
	"defenderiot/services/dedup"
)

func TestMain(m *testing.M) {
	trial.Enter(map[string]trial.Work{dedup.TrialWork: deadly})
	bustest.Leaks(m)
}

var source = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

func envelope(id string, generation uint64) proto.Envelope {
	now := time.Unix(1795374246, 0).UTC()
	return proto.Envelope{
		Row: fmt.Appendf(nil, `{"id":%q}`, id), Hash: proto.HashIdentity(id), HashVersion: proto.HashVersion, AlertID: id,
		EventTime: now, Source: source, PullingID: now.UnixMilli(), PullStart: now, Generation: generation, FetchTime: now,
		Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
	}
}

// raw publishes envelopes as the fetcher would.
func raw(t *testing.T, b *bus.Bus, envelopes ...proto.Envelope) {
	t.Helper()
	var msgs []bus.Message
	for _, e := range envelopes {
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, bus.Message{Subject: proto.RawSubject(source), Data: data, MsgID: fmt.Sprint(rand.Int64())})
	}
	if err := b.PublishBatch(bustest.Context(t), proto.StreamRaw, msgs); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, b *bus.Bus) (stop func()) {
	t.Helper()
	return startAfter(t, b, false)
}

// startAfter starts it after a bus that died, or did not.
func startAfter(t *testing.T, b *bus.Bus, interrupted bool) (stop func()) {
	t.Helper()
	d, err := dedup.New(dedup.Options{Bus: b, Logger: bustest.Logger(), Meter: noop.Meter{}, Tracer: nooptrace.Tracer{}, Interrupted: interrupted})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

// settled waits until every RAW message is acknowledged, and returns the alert ids in UNIQUE by count.
func settled(t *testing.T, b *bus.Bus) map[string]int {
	t.Helper()
	ctx := bustest.Context(t)
	for {
		c, err := b.JetStream().Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := b.JetStream().Stream(ctx, proto.StreamRaw)
		if err != nil {
			t.Fatal(err)
		}
		// The floor, too: what is just being handed out is for a moment neither pending nor unacknowledged.
		if i := c.CachedInfo(); i.NumPending == 0 && i.NumAckPending == 0 && i.AckFloor.Stream >= raw.CachedInfo().State.LastSeq {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return uniques(t, b)
}

func uniques(t *testing.T, b *bus.Bus) map[string]int {
	t.Helper()
	ctx := bustest.Context(t)
	stream, err := b.JetStream().Stream(ctx, proto.StreamUnique)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	state := stream.CachedInfo().State
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		e, err := proto.DecodeEnvelope(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		ids[fmt.Sprintf("%d/%s", e.Generation, e.AlertID)]++
	}
	return ids
}

func TestFirstSightingsOnly(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	var envelopes []proto.Envelope
	for i := range 500 {
		envelopes = append(envelopes, envelope(fmt.Sprint("a", i), 1))
		if i%3 == 0 {
			envelopes = append(envelopes, envelope(fmt.Sprint("a", i/2), 1))
		}
	}
	raw(t, b, envelopes...)
	stop := start(t, b)
	defer stop()
	got := settled(t, b)
	if len(got) != 500 {
		t.Errorf("%d alerts in UNIQUE", len(got))
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s is in UNIQUE %d times", id, n)
		}
	}
	// A new generation sends them again.
	raw(t, b, envelope("a1", 2), envelope("a1", 2), envelope("a1", 1))
	if got := settled(t, b); got["2/a1"] != 1 || got["1/a1"] != 1 {
		t.Errorf("generation 2: %d, generation 1: %d", got["2/a1"], got["1/a1"])
	}
}

func TestClaimOnlyAndOtherHashesSendNothing(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	silent := envelope("silent", 1)
	silent.ClaimOnly = true
	raw(t, b, silent, envelope("known", 1))
	stop := start(t, b)
	defer stop()
	settled(t, b)
	renamed := envelope("known", 1)
	renamed.Hash, renamed.OtherHashes = proto.HashIdentity("another algorithm"), []string{renamed.Hash}
	raw(t, b, envelope("silent", 1), renamed, renamed)
	got := settled(t, b)
	if len(got) != 1 || got["1/known"] != 1 {
		t.Errorf("UNIQUE holds %v", got)
	}
	// The claims say which of them was never published.
	for id, want := range map[string]bool{"silent": true, "known": false} {
		subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity(id)))
		stored, err := b.Lookup(bustest.Context(t), proto.BucketStream(proto.BucketHashes), []string{subject})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := proto.DecodeClaim(stored[subject].Data); err != nil || c.Silent != want {
			t.Errorf("claim of %s: %+v, %v", id, c, err)
		}
	}
}

func TestWhatIsNoEnvelopeIsBuriedAndBlocksNobody(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	raw(t, b, envelope("before", 1))
	for _, junk := range []string{"junk", "", "\x81\xa1v\x01"} {
		if _, err := b.JetStream().Publish(ctx, proto.RawSubject(source), []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	raw(t, b, envelope("after", 1))
	stop := start(t, b)
	defer stop()
	if got := settled(t, b); len(got) != 2 {
		t.Errorf("UNIQUE holds %v", got)
	}
	dead, err := b.JetStream().Stream(ctx, proto.StreamDead)
	if err != nil {
		t.Fatal(err)
	}
	if n := dead.CachedInfo().State.Msgs; n != 3 {
		t.Fatalf("%d dead letters", n)
	}
	for seq := uint64(1); seq <= 3; seq++ {
		m, err := dead.GetMsg(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		letter, err := proto.DecodeDeadLetter(m.Data)
		if err != nil || letter.Sequence < 2 || letter.Sequence > 4 || letter.Reason == "" {
			t.Errorf("dead letter %+v, %v", letter, err)
			continue
		}
		if letter.Sequence == 2 && string(letter.Payload) != "junk" {
			t.Errorf("payload %q", letter.Payload)
		}
	}
}

func TestNewerMajorStaysInTheStream(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	// {"v": 2, "m": 0}: whatever else a newer version holds.
	if _, err := b.JetStream().Publish(ctx, proto.RawSubject(source), []byte("\x82\xa1v\x02\xa1m\x00")); err != nil {
		t.Fatal(err)
	}
	raw(t, b, envelope("after", 1))
	stop := start(t, b)
	defer stop()
	for len(uniques(t, b)) == 0 && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	dead, err := b.JetStream().Stream(ctx, proto.StreamDead)
	if err != nil || dead.CachedInfo().State.Msgs != 0 {
		t.Errorf("dead letters: %v, %v", dead.CachedInfo().State.Msgs, err)
	}
	c, err := b.JetStream().Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil || c.CachedInfo().NumAckPending != 1 {
		t.Errorf("the newer message does not wait: %+v, %v", c.CachedInfo(), err)
	}
}

// TestStoppedAnywhere stops the service again and again at random moments, with several at once and every
// row twice: nothing may be missing, nothing twice.
func TestStoppedAnywhere(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	const alerts = 4000
	var envelopes []proto.Envelope
	for i := range alerts {
		envelopes = append(envelopes, envelope(fmt.Sprint("a", i), 1), envelope(fmt.Sprint("a", rand.IntN(alerts)), 1))
	}
	raw(t, b, envelopes...)
	for range 15 {
		stop1, stop2 := start(t, b), start(t, b)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		stop1()
		stop2()
	}
	stop := start(t, b)
	defer stop()
	got := settled(t, b)
	if len(got) != alerts {
		t.Errorf("%d of %d alerts in UNIQUE", len(got), alerts)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s %d times", id, n)
		}
	}
}

// TestClaimWithoutPublication is the crash between the claim and UNIQUE: the claim is there, the alert is
// not, and the same RAW sequence comes again.
func TestClaimWithoutPublication(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	raw(t, b, envelope("x", 1), envelope("x", 1))
	key := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity("x")))
	if err := b.TryBatch(ctx, proto.BucketStream(proto.BucketHashes), []bus.Message{{Subject: key, Data: proto.Claim{RawSequence: 1}.Encode(), ExpectEmpty: true}}); err != nil {
		t.Fatal(err)
	}
	stop := start(t, b)
	defer stop()
	if got := settled(t, b); got["1/x"] != 1 {
		t.Errorf("UNIQUE holds %v", got)
	}
}

func TestFullUniqueWaitsAndLosesNothing(t *testing.T) {
	topology := bustest.Topology()
	topology.UniqueBytes = 64 << 10
	b := bustest.New(t, topology)
	ctx := bustest.Context(t)
	var envelopes []proto.Envelope
	for i := range 600 {
		envelopes = append(envelopes, envelope(fmt.Sprint("a", i), 1))
	}
	raw(t, b, envelopes...)
	stop := start(t, b)
	defer stop()
	time.Sleep(time.Second) // it runs into the limit
	topology.UniqueBytes = 64 << 20
	if _, err := b.Provision(ctx, topology, false); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, b); len(got) != 600 {
		t.Errorf("%d of 600 alerts after the limit was raised", len(got))
	}
}
