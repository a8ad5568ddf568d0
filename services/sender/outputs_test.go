package sender_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/ledger"
	"defenderiot/services/sender"
	"defenderiot/services/simulator"
)

// TestOutputsGoOnAlone has two outputs of which one is away from the start: the other one delivers
// everything meanwhile, and in the end each has got every alert once.
func TestOutputsGoOnAlone(t *testing.T) {
	t.Parallel()
	first, second := newRig(t), newRig(t)
	b := bustest.New(t, bustest.Topology("devo_1", "devo_2"))
	settings := func(name string, r *rig) sender.OutputSettings {
		return sender.OutputSettings{Name: name, Endpoint: r.endpoint, Connections: 1, RotateEvents: 2500, RotateAfter: 5 * time.Second}
	}
	second.devo.Away()
	// More than may be unconfirmed at the output that is away.
	ids := fill(t, b, "a", bus.MaxUnconfirmed+1000)
	stop := start(t, b, settings("devo_1", first), settings("devo_2", second))
	settledAt(t, b, "devo_1", uint64(len(ids)))
	// And what comes while it is still away.
	ids = append(ids, fill(t, b, "b", 1000)...)
	v := settledAt(t, b, "devo_1", uint64(len(ids)))
	first.check(t, ids, v)
	if away, err := ledger.Read(bustest.Context(t), b, "devo_2"); err != nil || away.Counters.Confirmed != 0 {
		t.Errorf("confirmed at the output that is away: %+v, %v", away.Counters, err)
	}
	if n := second.devo.Stats().Frames; n != 0 {
		t.Errorf("%d frames at the endpoint that is away", n)
	}
	if err := second.devo.Back(); err != nil {
		t.Fatal(err)
	}
	away := settledAt(t, b, "devo_2", uint64(len(ids)))
	stop()
	second.check(t, ids, away)
	for name, d := range map[string]*simulator.Devo{"devo_1": first.devo, "devo_2": second.devo} {
		if s := d.Stats(); s.Duplicates != 0 || s.Unique != int64(len(ids)) {
			t.Errorf("%s got %d alerts and %d repeats of %d", name, s.Unique, s.Duplicates, len(ids))
		}
	}
}

// startLogging is start with a log.
func startLogging(t testing.TB, b *bus.Bus, logger *slog.Logger, settings ...sender.OutputSettings) (stop func()) {
	t.Helper()
	return startWith(t, sender.Options{Bus: b, Logger: logger, Outputs: settings})
}

// startWith sets what every test's sender has.
func startWith(t testing.TB, o sender.Options) (stop func()) {
	t.Helper()
	o.Instance, o.Meter, o.Tracer = fmt.Sprint(rand.Uint64()), noop.Meter{}, nooptrace.Tracer{}
	s, err := sender.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stopped := false
	stop = func() {
		cancel()
		<-done
		stopped = true
	}
	t.Cleanup(func() {
		if !stopped {
			stop()
		}
	})
	return stop
}

// with returns the lines of log that hold all texts.
func with(log *bustest.Log, texts ...string) []string {
	var out []string
next:
	for line := range strings.Lines(log.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		out = append(out, line)
	}
	return out
}

// TestCertificateReplacedWhileRunning replaces the pair file by file while alerts are delivered: every new
// connection comes about, and the state between is told once.
func TestCertificateReplacedWhileRunning(t *testing.T) {
	authority, err := simulator.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	dir, next := t.TempDir(), t.TempDir()
	pair := func(dir string) {
		t.Helper()
		client, err := authority.Client(simulator.Sound, "domain")
		if err = errors.Join(err, simulator.WritePair(dir, "domain", client)); err != nil {
			t.Fatal(err)
		}
	}
	pair(dir)
	pair(next)
	if err := authority.WriteChain(dir, "chain.crt"); err != nil {
		t.Fatal(err)
	}
	take := func(file string) {
		t.Helper()
		if err := os.Rename(filepath.Join(next, file), filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	r := rigWith(t, authority, dir)
	log := &bustest.Log{}
	stop := startLogging(t, r.bus, slog.New(slog.NewTextHandler(log, nil)), sender.OutputSettings{Name: output, Endpoint: r.endpoint, Connections: 1, RotateEvents: 100, RotateAfter: 5 * time.Second})
	ids := fill(t, r.bus, "before", 500)
	settled(t, r.bus, 500)

	take("domain.crt")
	ids = append(ids, fill(t, r.bus, "between", 500)...)
	settled(t, r.bus, 1000)
	if lines := with(log, "level=WARN", "does not belong to the certificate"); len(lines) != 1 {
		t.Errorf("%d lines about the state between:\n%s", len(lines), strings.Join(lines, ""))
	}
	take("domain.key")
	ids = append(ids, fill(t, r.bus, "after", 500)...)
	v := settled(t, r.bus, 1500)
	if lines := with(log, "taking up the certificate files of output "+output, "works again"); len(lines) != 1 {
		t.Errorf("%d lines about the end of it:\n%s", len(lines), strings.Join(lines, ""))
	}
	stop()
	r.check(t, ids, v)
	if v.Counters.Resent != 0 || v.Counters.Unclean != 0 {
		t.Errorf("%+v", v.Counters)
	}
	if lines := with(log, "level=ERROR"); len(lines) != 0 {
		t.Errorf("errors:\n%s", strings.Join(lines, ""))
	}
}
