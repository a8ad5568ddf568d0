//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"defenderiot/services/simulator"
)

// New programs over a running system, one after the other, and one of them back: envelopes of a newer major version wait
// in the stream for who can read them, others pass them by, and in the end everything has arrived once.
func TestNewerMajorVersion(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
	w := newWorld(t, simulator.Options{Backfill: 500}, "globals:", bus)
	server := w.server(port)
	nats := server()
	if p := w.start(collectorProgram, "provision"); p.Exit(patience) != 0 {
		t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
	}
	atDedup, atSender := freePort(t), freePort(t)
	w.listening("dedup.yaml", atDedup)
	w.listening("sender.yaml", atSender)
	fetcher := w.start(fetcherProgram)
	dedup := w.with(nil, dedupProgram, "--config", "dedup.yaml")
	sender := w.with(nil, senderProgram, "--config", "sender.yaml")
	w.arrived()

	const newer, older = 200, 100
	fetcher = w.replaced(fetcher, fetcherProgram+next)
	w.add(newer)
	dedup.tooOld(atDedup, "collector_dedup_newer_version_total", newer)
	if n := w.unique(); n != 500 {
		t.Errorf("%d alerts have arrived while dedup cannot read the newer ones, want 500", n)
	}

	w.replaced(dedup, dedupProgram+next)
	sender.tooOld(atSender, "collector_sender_newer_version_total", newer)
	if n := w.unique(); n != 500 {
		t.Errorf("%d alerts have arrived while the sender cannot read the newer ones, want 500", n)
	}

	// Back to the old fetcher: what it writes passes by what waits.
	fetcher = w.replaced(fetcher, fetcherProgram)
	w.add(older)
	eventually(t, "the older ones", func() bool { return w.unique() == 500+older })

	w.replaced(sender, senderProgram+next)
	w.replaced(fetcher, fetcherProgram+next)
	w.add(older)
	a := w.settle(0) // what waits is looked at every minute
	if s := w.status(); a.repeats != 0 || *s.DeadLetters != 0 {
		t.Errorf("%d alerts came twice, %d are dead letters, want none", a.repeats, *s.DeadLetters)
	}
	for _, p := range w.programs {
		if p.Running() && p != nats {
			p.stop()
		}
	}
	nats.stopServer()
}

// replaced stops a program in order and starts another one in its place.
func (w *world) replaced(old *program, name string) *program {
	w.t.Helper()
	old.stop()
	return w.start(name)
}

// tooOld waits until a program has met at least so many alerts that it cannot read, and demands that it said once that it
// must be upgraded, and goes on.
func (p *program) tooOld(port int, metric string, alerts float64) {
	p.t.Helper()
	p.says("reading alerts of a newer version", "upgrade it")
	eventually(p.t, p.Name+" to count them", func() bool { return counter(p.t, port, metric) >= alerts })
	if lines := p.Log.Lines("ERROR", "reading alerts of a newer version"); len(lines) != 1 {
		p.t.Errorf("%s said %d times that it must be upgraded, want once: %q", p.Name, len(lines), lines)
	}
	if !p.Running() {
		p.t.Errorf("%s ended", p.Name)
	}
}
