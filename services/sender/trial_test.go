package sender_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
	"defenderiot/services/sender"
)

func TestMain(m *testing.M) {
	trial.Enter(map[string]trial.Work{sender.TrialWork: deadly})
	bustest.Leaks(m)
}

// deadly is the trial of a sender that some alerts end, or hold up.
func deadly(option byte, message []byte) {
	switch {
	case bytes.Contains(message, []byte("deadly")):
		os.Exit(3)
	case bytes.Contains(message, []byte("slow")):
		time.Sleep(10 * time.Second)
	}
	sender.Try(option, message)
}

// careful starts a sender after the bus has died.
func (r *rig) careful(t *testing.T) (stop func()) {
	t.Helper()
	return startWith(t, sender.Options{Bus: r.bus, Logger: bustest.Logger(), Outputs: []sender.OutputSettings{r.settings()}, Interrupted: true})
}

func deadLetters(t *testing.T, b *bus.Bus) (all []*proto.DeadLetter) {
	t.Helper()
	messages, err := b.Read(bustest.Context(t), proto.StreamDead, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		letter, err := proto.DecodeDeadLetter(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, letter)
	}
	return all
}

// What takes two processes down is in the output's dead letters, and its neighbours are delivered once.
func TestCondemned(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := fill(t, r.bus, "before", 50)
	fill(t, r.bus, "deadly", 1)
	ids = append(ids, fill(t, r.bus, "after", 50)...)
	stop := r.careful(t)
	v := settled(t, r.bus, 100)
	for ctx := bustest.Context(t); v.Floor < 101 && ctx.Err() == nil; v = settled(t, r.bus, 100) {
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	r.check(t, ids, v)
	all := deadLetters(t, r.bus)
	if len(all) != 1 || v.Counters.Dead != 1 || v.Counters.Confirmed != 100 {
		t.Fatalf("ledger %+v, letters %+v", v, all)
	}
	if l := all[0]; l.Sequence != 51 || l.Output != output || l.AlertID != "" || !strings.Contains(l.Reason, "two crashes") || !bytes.Contains(l.Payload, []byte("deadly-0")) {
		t.Errorf("letter %+v", l)
	}
}

// What is confirmed and comes again, because its acknowledgement was lost, is no dead letter.
func TestCondemnedWhenConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	ids := append(fill(t, r.bus, "before", 10), fill(t, r.bus, "deadly", 1)...)
	stop := start(t, r.bus, r.settings())
	settled(t, r.bus, 11)
	stop()
	name := proto.OutputConsumer(output)
	consumer, err := r.bus.JetStream().Consumer(ctx, proto.StreamUnique, name)
	if err != nil {
		t.Fatal(err)
	}
	config := consumer.CachedInfo().Config
	if err := r.bus.JetStream().DeleteConsumer(ctx, proto.StreamUnique, name); err != nil {
		t.Fatal(err)
	}
	if _, err := r.bus.JetStream().CreateConsumer(ctx, proto.StreamUnique, config); err != nil {
		t.Fatal(err)
	}
	stop = r.careful(t)
	for floor := uint64(0); floor < 11 && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if consumer, err = r.bus.JetStream().Consumer(ctx, proto.StreamUnique, name); err != nil {
			t.Fatal(err)
		}
		floor = consumer.CachedInfo().AckFloor.Stream
	}
	stop()
	v := settled(t, r.bus, 11)
	r.check(t, ids, v)
	if all := deadLetters(t, r.bus); len(all) != 0 || v.Counters.Dead != 0 || r.devo.Stats().Frames != 11 {
		t.Errorf("ledger %+v, %d frames, letters %+v", v, r.devo.Stats().Frames, all)
	}
}

// While a message is tried for long, what is on the open connection is confirmed.
func TestSlowTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	settings := r.settings()
	settings.Connections, settings.RotateAfter = 1, time.Hour
	stop := startWith(t, sender.Options{Bus: r.bus, Logger: bustest.Logger(), Outputs: []sender.OutputSettings{settings}, Interrupted: true})
	ids := fill(t, r.bus, "a", 10)
	for ctx := bustest.Context(t); r.devo.Stats().Frames < 10 && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	ids = append(ids, fill(t, r.bus, "slow", 1)...)
	if v := settled(t, r.bus, 10); v.Counters.Confirmed != 10 {
		t.Errorf("%d are confirmed at once: the first ones have waited for the slow one", v.Counters.Confirmed)
	}
	v := settled(t, r.bus, 11)
	stop()
	r.check(t, ids, v)
}

// A storm of redeliveries is tried in batches.
func BenchmarkTrial(b *testing.B) {
	for _, name := range []string{"plain", "compressed"} {
		b.Run(name, func(b *testing.B) {
			e := proto.Envelope{
				Row: []byte(`{"id":"a","pad":"` + strings.Repeat("x", 1400) + `"}`), Hash: proto.HashIdentity("a"), HashVersion: 1, AlertID: "a",
				EventTime: day, Source: source, PullStart: day, Generation: 1, FetchTime: day, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
			}
			data, err := e.Encode()
			if err != nil {
				b.Fatal(err)
			}
			option := byte(0)
			if name == "compressed" {
				option = 6
			}
			tried := trial.New(sender.TrialWork, bustest.Logger())
			defer tried.Close()
			batch := slices.Repeat([][]byte{data}, 1000)
			for b.Loop() {
				tried.Try(b.Context(), option, batch)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/message")
		})
	}
}
