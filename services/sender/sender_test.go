package sender_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
	"defenderiot/services/sender"
	"defenderiot/services/simulator"
)

var source = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

const output = "devo_1"

// fill puts alerts into UNIQUE as dedup does and returns their ids.
func fill(t testing.TB, b *bus.Bus, prefix string, n int) []string {
	t.Helper()
	var msgs []bus.Message
	var ids []string
	now := time.Now().UTC()
	for i := range n {
		id := fmt.Sprintf("%s-%d", prefix, i)
		e := proto.Envelope{
			Row: fmt.Appendf(nil, `{"id":%q,"pad":%q}`, id, strings.Repeat("x", 1400)), Hash: proto.HashIdentity(id), HashVersion: 1, AlertID: id,
			EventTime: now, Source: source, PullingID: now.UnixMilli(), PullStart: now, Generation: 1, FetchTime: now, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
		}
		data, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		msgs = append(msgs, bus.Message{Subject: proto.UniqueSubject(source, 1, e.Hash), Data: data, ExpectEmpty: true})
	}
	if err := b.PublishBatch(bustest.Context(t), proto.StreamUnique, msgs); err != nil {
		t.Fatal(err)
	}
	return ids
}

type rig struct {
	bus      *bus.Bus
	devo     *simulator.Devo
	endpoint devo.Endpoint
}

// plainRig has an endpoint that speaks TCP without TLS, for the outputs syslog, sidecar and in_house_relay.
func plainRig(t testing.TB) *rig {
	t.Helper()
	return rigWith(t, nil, "")
}

func newRig(t testing.TB) *rig {
	t.Helper()
	authority, err := simulator.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	client, err := authority.Client(simulator.Sound, "domain")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(authority.WriteChain(dir, "chain.crt"), simulator.WritePair(dir, "domain", client)); err != nil {
		t.Fatal(err)
	}
	return rigWith(t, authority, dir)
}

func rigWith(t testing.TB, authority *simulator.Authority, dir string) *rig {
	t.Helper()
	d, err := simulator.NewDevo(simulator.DevoOptions{Authority: authority, KeepFrames: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = d.Close(ctx)
	})
	host, port, err := net.SplitHostPort(d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.Atoi(port)
	endpoint := devo.Endpoint{Kind: devo.TCP, Address: host, Port: number}
	if authority != nil {
		endpoint.Kind = devo.TLS
		endpoint.ChainFile, endpoint.CertFile, endpoint.KeyFile = filepath.Join(dir, "chain.crt"), filepath.Join(dir, "domain.crt"), filepath.Join(dir, "domain.key")
	}
	return &rig{bus: bustest.New(t, bustest.Topology(output)), devo: d, endpoint: endpoint}
}

func (r *rig) start(t testing.TB, connections int) (stop func()) {
	t.Helper()
	return start(t, r.bus, sender.OutputSettings{Name: output, Endpoint: r.endpoint, Connections: connections, RotateEvents: 2500, RotateAfter: 5 * time.Second})
}

// start runs a sender until stop.
func start(t testing.TB, b *bus.Bus, settings ...sender.OutputSettings) (stop func()) {
	t.Helper()
	return startLogging(t, b, bustest.Logger(), settings...)
}

// settled waits until the output's ledger has confirmed n alerts.
func settled(t testing.TB, b *bus.Bus, n uint64) ledger.View {
	t.Helper()
	return settledAt(t, b, output, n)
}

func settledAt(t testing.TB, b *bus.Bus, output string, n uint64) ledger.View {
	t.Helper()
	ctx := bustest.Context(t)
	for {
		v, err := ledger.Read(ctx, b, output)
		if err == nil && v.Counters.Confirmed >= n {
			return v
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d confirmed: %+v, %v", v.Counters.Confirmed, n, v, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// check is the account of a test: nothing missing, nothing repeated that was not counted.
func (r *rig) check(t *testing.T, ids []string, v ledger.View) {
	t.Helper()
	stats := r.devo.Stats()
	t.Logf("created %d, arrived %d, repeats %d (counted as possibly resent: %d), cut tails %d, rotations %d, unclean %d",
		len(ids), stats.Unique, stats.Duplicates, v.Counters.Resent, stats.CutTails, v.Counters.Rotations, v.Counters.Unclean)
	if missing := r.devo.Missing(ids); len(missing) > 0 {
		t.Errorf("%d alerts are missing, for example %v", len(missing), missing[0])
	}
	if stats.Duplicates > int64(v.Counters.Resent) {
		t.Errorf("%d repeats, but only %d counted as possibly resent", stats.Duplicates, v.Counters.Resent)
	}
	if v.Counters.Resent > uint64(bus.MaxUnconfirmed)*(v.Counters.Unclean+1) {
		t.Errorf("%d resent for %d broken connections", v.Counters.Resent, v.Counters.Unclean)
	}
}

func TestDeliversOnce(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{1, 3} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			r := newRig(t)
			ids := fill(t, r.bus, "a", 8000)
			stop := r.start(t, connections)
			v := settled(t, r.bus, 8000)
			stop()
			r.check(t, ids, v)
			if v.Counters.Resent != 0 || r.devo.Stats().Duplicates != 0 || v.Unconfirmed() != 0 || v.Floor != 8000 {
				t.Errorf("ledger %+v", v)
			}
		})
	}
}

func TestSingleAlertIsConfirmed(t *testing.T) {
	r := newRig(t)
	r.start(t, 1)
	for i := range 3 {
		ids := fill(t, r.bus, fmt.Sprint("single", i), 1)
		v := settled(t, r.bus, uint64(i+1))
		r.check(t, ids, v)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simulator.DevoFault{
		"stalls-then-resets":         {AfterFrames: 700, Stall: 3 * time.Second, End: simulator.Reset},
		"closes-with-unread-data":    {AfterFrames: 700, Stall: 300 * time.Millisecond, End: simulator.CloseUnread, ReceiveBuffer: 64 << 10},
		"closes-politely-early":      {AfterFrames: 100, End: simulator.CloseOrderly},
		"accepts-and-closes":         {Connections: 3, Drop: true},
		"refuses-the-certificate":    {Connections: 3, Refuse: true},
		"answers-half-close-late":    {Connections: 2, AnswerDelay: 2 * time.Second},
		"reads-slowly":               {Connections: 2, ThrottleBytes: 64 << 10, ThrottleEvery: 20 * time.Millisecond},
		"resets-again-and-again":     {Connections: 4, AfterFrames: 300, End: simulator.Reset},
		"half-close-unanswered-once": {Connections: 1, NoAnswer: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.devo.Fail(fault)
			ids := fill(t, r.bus, "f", 6000)
			stop := r.start(t, 1)
			v := settled(t, r.bus, 6000)
			stop()
			r.check(t, ids, v)
		})
	}
}

// TestStoppedEndpoint has an endpoint that has said close_notify so far be stopped: it answers half-closes by a
// FIN alone and drops what it has not read, although its TCP has acknowledged all of it.
func TestStoppedEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := fill(t, r.bus, "polite", 300)
	stop := r.start(t, 1)
	settled(t, r.bus, 300)
	r.devo.Fail(simulator.DevoFault{Connections: 2, AfterFrames: 50, End: simulator.ShutUnread, ReceiveBuffer: 2 << 20})
	var v ledger.View
	for k := range 2 {
		ids = append(ids, fill(t, r.bus, fmt.Sprint("stopped", k), 300)...)
		v = settled(t, r.bus, uint64(len(ids)))
	}
	stop()
	r.check(t, ids, v)
	if v.Counters.Unclean == 0 {
		t.Error("the endpoint dropped nothing: no connection was unclean")
	}
}

func TestAbsentAtStartAndAwayInMidRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.devo.Away()
	ids := fill(t, r.bus, "early", 3000)
	stop := r.start(t, 2)
	time.Sleep(1500 * time.Millisecond)
	if err := r.devo.Back(); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		time.Sleep(300 * time.Millisecond)
		r.devo.Away()
		ids = append(ids, fill(t, r.bus, fmt.Sprint("mid", i), 1000)...)
		time.Sleep(200 * time.Millisecond)
		if err := r.devo.Back(); err != nil {
			t.Fatal(err)
		}
	}
	v := settled(t, r.bus, 7000)
	stop()
	r.check(t, ids, v)
}

// TestReplicasComeAndGo has several senders that are stopped in order at any time: they share the work,
// and with an endpoint that answers nothing is repeated.
func TestReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := fill(t, r.bus, "a", 12000)
	for range 6 {
		stop1, stop2 := r.start(t, 1), r.start(t, 2)
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		stop1()
		stop2()
	}
	stop := r.start(t, 1)
	v := settled(t, r.bus, 12000)
	stop()
	r.check(t, ids, v)
	if d := r.devo.Stats().Duplicates; d != 0 {
		t.Errorf("%d repeats after orderly stops", d)
	}
}

func TestPoisonBlocksNobody(t *testing.T) {
	r := newRig(t)
	ctx := bustest.Context(t)
	ids := fill(t, r.bus, "before", 10)
	for i, junk := range []string{"junk", "\x81\xa1v\x01"} {
		if _, err := r.bus.JetStream().Publish(ctx, fmt.Sprint("alerts.unique.x.y.z.1.junk", i), []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	ids = append(ids, fill(t, r.bus, "after", 10)...)
	r.start(t, 1)
	v := settled(t, r.bus, 20)
	r.check(t, ids, v)
	if v.Counters.Dead != 2 {
		t.Errorf("%d dead", v.Counters.Dead)
	}
}

func TestConsole(t *testing.T) {
	b := bustest.New(t, bustest.Topology(output))
	fill(t, b, "c", 100)
	var out bytes.Buffer
	stop := start(t, b, sender.OutputSettings{Name: output, Console: &out, Connections: 1, RotateEvents: 2500, RotateAfter: time.Second})
	settled(t, b, 100)
	stop()
	if n := strings.Count(out.String(), "edr.microsoft_defender.iot_security.alert: {"); n != 100 {
		t.Errorf("%d lines", n)
	}
}

func TestPlainTCP(t *testing.T) {
	t.Parallel()
	r := plainRig(t)
	r.devo.Fail(simulator.DevoFault{AfterFrames: 500, Stall: 200 * time.Millisecond, End: simulator.Reset})
	ids := fill(t, r.bus, "plain", 4000)
	stop := r.start(t, 1)
	v := settled(t, r.bus, 4000)
	stop()
	r.check(t, ids, v)
}

// TestUnprovedEndpoint has an endpoint that never answers a half-close: after three the output is
// unproved, what its TCP has acknowledged and nothing has disturbed is confirmed, and an answer ends that.
func TestUnprovedEndpoint(t *testing.T) {
	t.Parallel()
	// With small windows an unproved one holds more than a proved one may when the endpoint answers again.
	t.Run("windows of 2500", func(t *testing.T) { unprovedEndpoint(t, 2500, 6000) })
	t.Run("windows of 5", func(t *testing.T) { unprovedEndpoint(t, 5, 300) })
}

func unprovedEndpoint(t *testing.T, rotate, n int) {
	r := newRig(t)
	r.devo.Fail(simulator.DevoFault{Connections: -1, NoAnswer: true})
	ids := fill(t, r.bus, "u", n)
	settings := sender.OutputSettings{Name: output, Endpoint: r.endpoint, Connections: 2, RotateEvents: rotate, RotateAfter: 5 * time.Second}
	settings.ShortenProof(300*time.Millisecond, 1500*time.Millisecond, 3*time.Second)
	stop := start(t, r.bus, settings)
	v := settled(t, r.bus, uint64(n))
	if v.Proof != proto.ProofUnproved {
		t.Errorf("proof %s", v.Proof)
	}
	r.devo.Clear()
	ctx := bustest.Context(t)
	for k := 0; v.Proof != proto.ProofHalfClose; k++ {
		ids = append(ids, fill(t, r.bus, fmt.Sprint("later", k), 10)...)
		time.Sleep(500 * time.Millisecond)
		var err error
		if v, err = ledger.Read(ctx, r.bus, output); err != nil {
			t.Fatalf("still %s: %v", v.Proof, err)
		}
	}
	v = settled(t, r.bus, uint64(len(ids)))
	stop()
	r.check(t, ids, v)
}

// TestRecreatedStreamIsRefused has UNIQUE begin again at sequence 1 under a ledger that has confirmed more:
// nothing may be taken for confirmed.
func TestRecreatedStreamIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := bustest.Context(t)
	ids := fill(t, r.bus, "before", 50)
	stop := r.start(t, 1)
	r.check(t, ids, settled(t, r.bus, 50))
	stop()
	if err := r.bus.JetStream().DeleteStream(ctx, proto.StreamUnique); err != nil {
		t.Fatal(err)
	}
	// By hand, as a restore would: the stream and the consumer are back, the ledger is the old one.
	s, err := r.bus.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: proto.StreamUnique, Subjects: []string{proto.SubjectsUnique}, AllowAtomicPublish: true, AllowDirect: true})
	if err != nil {
		t.Fatal(err)
	}
	consumer := jetstream.ConsumerConfig{Durable: proto.OutputConsumer(output), AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: bus.MaxUnconfirmed}
	if _, err := s.CreateConsumer(ctx, consumer); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, fill(t, r.bus, "after", 20)...)
	stop = r.start(t, 1)
	time.Sleep(time.Second)
	stop()
	if info, err := s.Consumer(ctx, consumer.Durable); err != nil || info.CachedInfo().AckFloor.Stream != 0 {
		t.Fatalf("acknowledged unsent: %+v, %v", info.CachedInfo().AckFloor, err)
	}
	// The remedy of the hint.
	if err := s.DeleteConsumer(ctx, consumer.Durable); err != nil {
		t.Fatal(err)
	}
	if _, err := r.bus.Provision(ctx, bustest.Topology(output), false); err != nil {
		t.Fatal(err)
	}
	r.start(t, 1)
	r.check(t, ids, settled(t, r.bus, 20))
}
