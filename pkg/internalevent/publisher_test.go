package internalevent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// program is a log with copies.
func program(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Settings{Service: "test", Copy: true, LogOutput: discard{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	return tel
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func publish(t *testing.T, tel *telemetry.Telemetry, b *bus.Bus) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p := NewPublisher(Collector{Name: "c", Version: "v", Host: "h"}, tel.Copies, b, tel.Logger)
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func stored(t *testing.T, b *bus.Bus) (lines []string) {
	t.Helper()
	s, err := b.JetStream().Stream(bustest.Context(t), proto.StreamInternal)
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq > 0 && seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(bustest.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(m.Data))
	}
	return lines
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// TestLinesOfBeforeAreKept logs before there is a publisher, while it runs, and right before its end.
func TestLinesOfBeforeAreKept(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	tel := program(t)
	want := 0
	say := func(n int) {
		for range n {
			tel.Logger.Info(fmt.Sprint("line-", want, "-"))
			want++
		}
	}
	say(350)
	stop := publish(t, tel, b)
	eventually(t, "the first lines to be stored", func() bool { return len(stored(t, b)) == want })
	say(2)
	eventually(t, "two more", func() bool { return len(stored(t, b)) == want })
	say(120)
	stop()
	got := stored(t, b)
	if len(got) != want {
		t.Fatalf("%d lines stored, want %d", len(got), want)
	}
	for i, line := range got {
		if !strings.Contains(line, fmt.Sprint("line-", i, "-")) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
}

// TestNoLoop has nowhere to store lines: what is said about that is in the log, and must not wait to be
// stored itself. Thousands of lines stay within the bound, and once there is a stream the last ones are in it.
func TestNoLoop(t *testing.T) {
	server := bustest.Server(t, t.TempDir())
	b := bustest.Connect(t, server)
	log := &bustest.Log{}
	tel, err := telemetry.New(t.Context(), telemetry.Settings{Service: "test", Copy: true, LogOutput: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	tel.Logger.Warn("the only line")
	stop := publish(t, tel, b)
	eventually(t, "a complaint", func() bool { return strings.Contains(log.String(), "own log lines for Devo failed") })
	if !strings.Contains(log.String(), "collector provision") {
		t.Errorf("no hint:\n%s", log.String())
	}
	if waiting := tel.Copies.Take(10); len(waiting) != 0 {
		t.Errorf("waiting to be stored: %+v", waiting)
	}
	for i := range 3000 {
		tel.Logger.Info(fmt.Sprint("line ", i))
	}
	if _, err := b.Provision(bustest.Context(t), bustest.Topology("devo"), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lines to be stored", func() bool { n := len(stored(t, b)); return n >= 1001 })
	eventually(t, "the end of the trouble", func() bool { return strings.Contains(log.String(), "works again") })
	stop()
	got := stored(t, b)
	if len(got) > 1001+batch || !strings.Contains(got[0], "the only line") || !strings.Contains(got[len(got)-1], `"msg":"line 2999"`) {
		t.Errorf("%d lines, the first %s, the last %s", len(got), got[0], got[len(got)-1])
	}
	for _, line := range got {
		if strings.Contains(line, "own log lines") {
			t.Errorf("a loop: %s", line)
		}
	}
	if d := tel.Copies.Dropped(); d < 1900 || d > 2000 {
		t.Errorf("%d dropped", d)
	}
}

// TestStreamStaysWithinItsBound stores more than INTERNAL holds.
func TestStreamStaysWithinItsBound(t *testing.T) {
	b := bustest.New(t, bustest.Topology("devo"))
	ctx := bustest.Context(t)
	const size = 60 << 10
	n := bus.InternalBytes/size + 50
	msgs := make([]bus.Message, n)
	for i := range msgs {
		msgs[i] = bus.Message{Subject: proto.SubjectInternalLines, Data: make([]byte, size), MsgID: fmt.Sprint(i)}
	}
	if err := b.PublishBatch(ctx, proto.StreamInternal, msgs); err != nil {
		t.Fatal(err)
	}
	s, err := b.JetStream().Stream(ctx, proto.StreamInternal)
	if err != nil {
		t.Fatal(err)
	}
	if state := s.CachedInfo().State; state.Bytes > bus.InternalBytes || state.LastSeq != uint64(n) || state.FirstSeq < 2 {
		t.Errorf("%d bytes, sequences %d to %d", state.Bytes, state.FirstSeq, state.LastSeq)
	}
}

// TestWithoutInternal has a server that refuses INTERNAL: provisioning goes on, nobody waits for it, and
// prune removes the consumers of outputs that get no lines any more.
func TestWithoutInternal(t *testing.T) {
	b := bustest.Connect(t, bustest.Server(t, t.TempDir()))
	ctx := bustest.Context(t)
	if _, err := b.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "TAKEN", Subjects: []string{"internal.lines"}}); err != nil {
		t.Fatal(err)
	}
	topology := bustest.Topology("devo")
	topology.Outputs[0].Internal = true
	if _, err := b.Provision(ctx, topology, false); err != nil {
		t.Errorf("provision: %v", err)
	}
	if err := b.Wait(ctx, topology, func(missing string) { t.Errorf("waits for %s", missing) }); err != nil {
		t.Errorf("wait: %v", err)
	}
	if err := b.JetStream().DeleteStream(ctx, "TAKEN"); err != nil {
		t.Fatal(err)
	}
	consumers := func(prune bool) (names []string) {
		if _, err := b.Provision(ctx, topology, prune); err != nil {
			t.Fatal(err)
		}
		s, err := b.JetStream().Stream(ctx, proto.StreamInternal)
		if err != nil {
			t.Fatal(err)
		}
		list := s.ConsumerNames(ctx)
		for name := range list.Name() {
			names = append(names, name)
		}
		return names
	}
	if got := consumers(false); fmt.Sprint(got) != "[output-devo]" {
		t.Errorf("consumers %v", got)
	}
	topology.Outputs[0].Internal = false
	if got := consumers(true); len(got) != 0 {
		t.Errorf("consumers after prune: %v", got)
	}
}
