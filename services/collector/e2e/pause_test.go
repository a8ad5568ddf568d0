//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// pauseTime is beyond the acknowledgement wait (10 s) and the lease (14 s), and so beyond all that others wait for.
const pauseTime = 20 * time.Second

// pause stops a process for a while, as a frozen virtual machine does, and lets it go on.
func (p *program) pause(d time.Duration) {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	p.Signal(syscall.SIGCONT)
}

// The one process is frozen with alerts on their way. What it held is delivered again by itself, at most.
func TestPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 3000})
	p := w.run()
	end := w.feed(30)
	w.flows()
	quiet := p.leaks()
	p.pause(pauseTime)
	w.breaks++
	recovered := w.flows()
	end()
	w.arrived()
	w.confirmed()
	quiet()
	w.healthy(p, recovered)
}

// separate is the services as programs of their own on a nats-server, as many of each as names say: fetcher-1,
// fetcher-2, dedup-1, sender-1 and so on.
type separate struct {
	*world
	port     int
	nats     *program
	server   func() *program
	services map[string]*program
	names    []string
}

func newSeparate(t *testing.T, o simulator.Options, names ...string) *separate {
	t.Helper()
	port := freePort(t)
	bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
	s := &separate{world: newWorld(t, o, "globals:", bus), port: port, services: map[string]*program{}, names: names}
	s.server = s.world.server(port)
	s.nats = s.server()
	if p := s.start(collectorProgram, "provision"); p.Exit(patience) != 0 {
		t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
	}
	for _, name := range names {
		s.run(name)
	}
	return s
}

func (s *separate) run(name string) {
	program, _, _ := strings.Cut(name, "-")
	config := "config.yaml"
	if _, err := os.Stat(filepath.Join(s.dir, name+".yaml")); err == nil {
		config = name + ".yaml"
	}
	s.services[name] = s.with(nil, program, "--config", config)
}

// stop ends the services in order.
func (s *separate) stop() {
	for _, name := range s.names {
		s.services[name].stop()
	}
}

// Each service is frozen in turn, beside one that goes on in its place. A frozen fetcher or dedup repeats nothing.
func TestEachPaused(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 2000}, "fetcher-1", "fetcher-2", "dedup-1", "dedup-2", "sender-1", "sender-2")
	end := s.feed(30)
	s.flows()
	var slowest time.Duration
	for _, name := range []string{s.active(), "dedup-1", "sender-1"} {
		p := s.services[name]
		p.Signal(syscall.SIGSTOP)
		begun := time.Now()
		slowest = max(slowest, s.flows()) // by the others
		time.Sleep(max(0, pauseTime-time.Since(begun)))
		p.Signal(syscall.SIGCONT)
		if strings.HasPrefix(name, senderProgram) {
			s.breaks++
		}
		slowest = max(slowest, s.flows())
	}
	end()
	s.settle(slowest)
	s.stop()
}

// Fetchers on standby: the one that is active is killed, and killed again, and frozen until another has taken over;
// when it comes back it must not undo what that has done. Nothing is missing, and nothing at all comes twice.
func TestStandbyFetchers(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 1000}, "fetcher-1", "fetcher-2", "dedup-1", "sender-1")
	end := s.feed(20)
	s.flows()
	var slowest time.Duration
	for range 2 {
		active := s.active()
		s.kill(s.services[active])
		slowest = max(slowest, s.flows())
		s.run(active)
	}
	frozen := s.active()
	s.services[frozen].Signal(syscall.SIGSTOP)
	slowest = max(slowest, s.flows())
	s.services[frozen].Signal(syscall.SIGCONT)
	s.flows()
	end()
	if a := s.settle(slowest); a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again", a.repeats)
	}
	s.stop()
}

// active names the fetcher that pulls: the last one that said so.
func (s *separate) active() (name string) {
	s.t.Helper()
	eventually(s.t, "a fetcher to pull", func() bool {
		var newest string
		for _, one := range s.names {
			if !strings.HasPrefix(one, fetcherProgram) || !s.services[one].Running() {
				continue
			}
			if lines := s.services[one].Log.Lines("Pull Started"); len(lines) > 0 {
				if last := lines[len(lines)-1]; last > newest { // lines begin with their time
					name, newest = one, last
				}
			}
		}
		return newest != ""
	})
	return name
}

// Everything is killed at once, the server too, again and again.
func TestAllKilledAtOnce(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 2000}, "fetcher-1", "dedup-1", "dedup-2", "sender-1", "sender-2")
	end := s.feed(30)
	var slowest time.Duration
	for range 3 {
		s.flows()
		for _, name := range s.names {
			s.kill(s.services[name])
		}
		s.kill(s.nats)
		s.breaks += 3 // two senders and the server
		s.nats = s.server()
		for _, name := range s.names {
			s.run(name)
		}
		slowest = max(slowest, s.flows())
	}
	end()
	s.settle(slowest)
	s.stop()
}

// Fetcher and dedup are killed at random while the sender goes on: nothing comes twice.
func TestKilledBeforeTheSender(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 3000}, "fetcher-1", "dedup-1", "sender-1")
	end := s.feed(50)
	var slowest time.Duration
	for i := range 10 {
		s.flows()
		name := s.names[i%2]
		s.kill(s.services[name])
		s.run(name)
		slowest = max(slowest, s.flows())
	}
	end()
	if a := s.settle(slowest); a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again, %d are counted as possibly resent", a.repeats, a.resent)
	}
	s.stop()
}
