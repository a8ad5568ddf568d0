package sender_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
	"defenderiot/services/sender"
	"defenderiot/services/simulator"
)

// ownRig is a sender with everything that tells about itself: a log whose copies go through INTERNAL to the
// endpoint, which keeps its frames.
type ownRig struct {
	*rig
	log *bustest.Log
	tel *telemetry.Telemetry
}

func newOwnRig(t *testing.T, authority *simulator.Authority, dir string) *ownRig {
	t.Helper()
	d, err := simulator.NewDevo(simulator.DevoOptions{Authority: authority, KeepFrames: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	host, port, _ := net.SplitHostPort(d.Addr())
	number, _ := strconv.Atoi(port)
	endpoint := devo.Endpoint{Kind: devo.TCP, Address: host, Port: number}
	if authority != nil {
		client, err := authority.Client(simulator.Sound, "domain")
		if err := errors.Join(err, authority.WriteChain(dir, "chain.crt"), simulator.WritePair(dir, "domain", client)); err != nil {
			t.Fatal(err)
		}
		endpoint.Kind = devo.TLS
		endpoint.ChainFile, endpoint.CertFile, endpoint.KeyFile = filepath.Join(dir, "chain.crt"), filepath.Join(dir, "domain.crt"), filepath.Join(dir, "domain.key")
	}
	topology := bustest.Topology(output)
	topology.Outputs[0].Internal = true
	r := &ownRig{rig: &rig{bus: bustest.New(t, topology), devo: d, endpoint: endpoint}, log: &bustest.Log{}}
	r.tel, err = telemetry.New(t.Context(), telemetry.Settings{Service: "sender", Copy: true, LogOutput: r.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.tel.Close(context.Background()) })
	return r
}

var who = internalevent.Collector{ID: "10001", Name: "collector", Version: "1", Host: "host"}

// run starts the sender and the publisher; period is of the statistics.
func (r *ownRig) run(t *testing.T, period time.Duration) (stop func()) {
	t.Helper()
	s, err := sender.New(sender.Options{
		Bus: r.bus, Instance: t.Name(), Logger: r.tel.Logger, Meter: noop.Meter{}, Tracer: nooptrace.Tracer{}, Collector: who,
		Outputs: []sender.OutputSettings{{
			Name: output, Endpoint: r.endpoint, Connections: 1, RotateEvents: 2500, RotateAfter: 5 * time.Second, Internal: true, StatisticsPeriod: period,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = s.Run(ctx) })
	group.Go(func() { internalevent.NewPublisher(who, r.tel.Copies, r.bus, r.tel.Logger).Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (r *ownRig) arrived(tag string) int64 { return r.devo.Stats().Tags[tag] }

func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

const (
	infoTag    = "devo.collectors.out.local.info"
	warningTag = "devo.collectors.out.local.warning"
	metricTag  = "devo.collector.metric.message_sent"
)

// TestOwnLinesReachDevo over TLS and TCP, beside alerts, and with them the statistics and the metric message.
func TestOwnLinesReachDevo(t *testing.T) {
	t.Parallel()
	for _, carrier := range []string{"tls", "tcp"} {
		t.Run(carrier, func(t *testing.T) {
			var authority *simulator.Authority
			if carrier == "tls" {
				var err error
				if authority, err = simulator.NewAuthority("test"); err != nil {
					t.Fatal(err)
				}
			}
			r := newOwnRig(t, authority, t.TempDir())
			ids := fill(t, r.bus, "a", 500)
			for i := range 250 {
				r.tel.Logger.Info(fmt.Sprint("line ", i))
			}
			stop := r.run(t, 1500*time.Millisecond)
			v := settled(t, r.bus, 500)
			soon(t, "the lines to arrive", func() bool { return r.arrived(infoTag) >= 250 })
			telemetry.Shared(r.tel.Logger).Warn("the stop")
			soon(t, "a shared line", func() bool { return r.arrived("devo.collectors.out.global.warning") == 1 })
			soon(t, "a metric message", func() bool { return r.arrived(metricTag) >= 1 })
			class := map[string]string{"tls": "DevoSender", "tcp": "SyslogSender"}[carrier]
			line := regexp.MustCompile(`   INFO OutputProcess::` + class + `ManagerMonitor\(standard_senders,devo_1\) -> Standard - Total number of messages sent: 500, messages sent since "[^"]{32}": (\d+) \(elapsed \d\.\d{3} seconds\)\n`)
			soon(t, "the standard statistics", func() bool { return line.MatchString(r.log.String()) })
			soon(t, "the internal statistics", func() bool {
				return strings.Contains(r.log.String(), class+"ManagerMonitor(internal_senders,devo_1) -> Internal - Total number of messages sent: ")
			})
			if lookup := strings.Contains(r.log.String(), "DevoSenderManagerMonitor(lookup_senders,devo_1) -> Lookup - Total number of messages sent: 0, "); lookup != (carrier == "tls") {
				t.Errorf("a line about lookups: %v", lookup)
			}
			stop()
			r.check(t, ids, v)
			sum := 0
			counter := regexp.MustCompile(metricTag + `: \{"col_id":"10001",.*"part_counter":(\d+),`)
			for _, frame := range r.devo.Frames() {
				text := string(frame)
				if m := counter.FindStringSubmatch(text); m != nil {
					n, _ := strconv.Atoi(m[1])
					sum += n
				}
				for _, own := range []string{"statistics", "Total number", "available senders", "internal_senders", "Starting thread"} {
					if strings.Contains(text, own) && strings.Contains(text, "devo.collectors.out") {
						t.Errorf("a line that must not be copied: %s", text)
					}
				}
			}
			if sum != 500 {
				t.Errorf("the metric messages count %d of 500 alerts", sum)
			}
		})
	}
}

// TestOutageOfDevo logs thousands of lines while Devo is away: memory and stream keep to their bounds, what
// is said about the outage by the internal sender causes no lines of its own, and when Devo is back alerts
// flow although the lines have not all been sent.
func TestOutageOfDevo(t *testing.T) {
	t.Parallel()
	r := newOwnRig(t, nil, "")
	r.devo.Away()
	r.run(t, 0)
	ids := fill(t, r.bus, "away", 1000)
	soon(t, "both senders to notice", func() bool {
		text := r.log.String()
		return strings.Contains(text, "delivery to devo_1") && (strings.Contains(text, "own log lines to devo_1") || r.last(t) > 0)
	})
	const wave, waves = 600, 8
	for i := range wave * waves {
		r.tel.Logger.Warn(fmt.Sprint("storm ", i), "pad", strings.Repeat("x", 2000))
		if i%wave == wave-1 {
			n := uint64(i + 1)
			soon(t, "the wave to be stored", func() bool { return r.last(t)+uint64(r.tel.Copies.Dropped()) >= n })
		}
	}
	soon(t, "a complaint of the internal sender", func() bool { return strings.Contains(r.log.String(), "own log lines to devo_1") })
	// Nothing is logged now: the failing sender must not fill the stream by itself.
	quiet := r.last(t)
	time.Sleep(4 * time.Second)
	if now := r.last(t); now > quiet+2 {
		t.Errorf("%d lines came from nothing", now-quiet)
	}
	if err := r.devo.Back(); err != nil {
		t.Fatal(err)
	}
	v := settled(t, r.bus, 1000)
	r.check(t, ids, v)
	soon(t, "the lines to arrive", func() bool { return r.arrived(warningTag) >= wave*waves-r.tel.Copies.Dropped() })
	for _, frame := range r.devo.Frames() {
		if bytes.Contains(frame, []byte("own log lines")) {
			t.Fatalf("a loop: %s", frame)
		}
	}
}

// last is INTERNAL's last sequence.
func (r *ownRig) last(t *testing.T) uint64 {
	t.Helper()
	s, err := r.bus.JetStream().Stream(bustest.Context(t), proto.StreamInternal)
	if err != nil {
		t.Fatal(err)
	}
	if b := s.CachedInfo().State.Bytes; b > bus.InternalBytes {
		t.Errorf("INTERNAL has %d bytes", b)
	}
	return s.CachedInfo().State.LastSeq
}

// TestInternalFaults has the connection of the lines break in every way; alerts are not disturbed and the
// lines that the endpoint had not taken come again.
func TestInternalFaults(t *testing.T) {
	t.Parallel()
	r := newOwnRig(t, nil, "")
	r.devo.Fail(simulator.DevoFault{AfterFrames: 3, End: simulator.Reset})
	r.run(t, 0)
	for i := range 400 {
		r.tel.Logger.Info(fmt.Sprint("line ", i))
		if i%50 == 0 {
			time.Sleep(100 * time.Millisecond)
		}
	}
	soon(t, "the last lines to arrive", func() bool {
		for _, frame := range r.devo.Frames() {
			if bytes.Contains(frame, []byte(`"msg":"line 399"`)) {
				return true
			}
		}
		return false
	})
}

// TestMissingInternal has no INTERNAL at all, as a bus that an older version has provisioned: alerts flow.
func TestMissingInternal(t *testing.T) {
	r := newOwnRig(t, nil, "")
	if err := r.bus.JetStream().DeleteStream(bustest.Context(t), proto.StreamInternal); err != nil {
		t.Fatal(err)
	}
	ids := fill(t, r.bus, "a", 300)
	stop := r.run(t, 200*time.Millisecond)
	v := settled(t, r.bus, 300)
	soon(t, "what to do about it", func() bool {
		return strings.Contains(r.log.String(), "taking the collector's own log lines") && strings.Contains(r.log.String(), "collector provision")
	})
	stop()
	r.check(t, ids, v)
}

// TestJunkInInternal is dropped: it would spoil the frames around it.
func TestJunkInInternal(t *testing.T) {
	r := newOwnRig(t, nil, "")
	for _, junk := range []string{"junk", "", "<14>no line break", "<14>two\nlines\n"} {
		if _, err := r.bus.JetStream().Publish(bustest.Context(t), proto.SubjectInternalLines, []byte(junk)); err != nil {
			t.Fatal(err)
		}
	}
	r.tel.Logger.Info("good")
	r.run(t, 0)
	soon(t, "the good line", func() bool { return r.arrived(infoTag) == 1 })
	if n := r.devo.Stats().Frames; n != 1 {
		t.Errorf("%d frames", n)
	}
}
