//go:build e2e

package e2e

import (
	"flag"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

var (
	soakTime = flag.Duration("soak", 20*time.Second, "how long TestSoak goes on")
	soakSeed = flag.Uint64("seed", 1, "what the plan of TestSoak is made from")
	soakRate = flag.Float64("rate", 100, "alerts a second in TestSoak")
)

// All faults at random, by a seed: kill -9 of any service, of all and of the server, frozen services, an endpoint and
// an Azure that fail in every way. One seed is one plan; when each step falls depends on the machine.
func TestSoak(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 3000}, "fetcher-1", "fetcher-2", "dedup-1", "dedup-2", "sender-1", "sender-2")
	plan := rand.New(rand.NewPCG(*soakSeed, 0))
	t.Logf("seed %d, %v, %.0f alerts/s", *soakSeed, *soakTime, *soakRate)
	end := s.feed(*soakRate)
	s.flows()
	begun := time.Now()
	var slowest time.Duration
	for step := 0; time.Since(begun) < *soakTime && !t.Failed(); step++ {
		s.fault(plan)
		s.sim.Devo.Clear()
		s.sim.Graph.ClearFaults()
		slowest = max(slowest, s.flows())
	}
	end()
	s.settle(slowest)
	s.stop()
}

// fault is one of the plan; when it returns, its cause is gone.
func (s *separate) fault(plan *rand.Rand) {
	victim := func() string { return s.names[plan.IntN(len(s.names))] }
	switch n := plan.IntN(20); {
	case n < 10: // one, or one after the other
		for range 1 + plan.IntN(3) {
			s.killOne(victim())
			time.Sleep(time.Duration(plan.IntN(300)) * time.Millisecond)
		}
	case n == 10:
		for _, name := range s.names {
			s.killOne(name)
		}
	case n == 11:
		s.kill(s.nats)
		s.breaks++
		s.nats = s.server()
	case n == 12:
		name := victim()
		p := s.services[name]
		p.Signal(syscall.SIGSTOP)
		time.Sleep(time.Duration(1+plan.IntN(20)) * time.Second)
		p.Signal(syscall.SIGCONT)
		s.doubt(name)
	case n < 17:
		faults := []simulator.DevoFault{
			{AfterFrames: 50, Stall: 3 * time.Second, End: simulator.Reset},
			{AfterFrames: 20, End: simulator.CloseUnread},
			{AfterFrames: 20, End: simulator.CloseOrderly},
			{Drop: true},
			{Refuse: true},
			{AnswerDelay: 3 * time.Second},
			{Live: true, Connections: -1, ThrottleBytes: 1, ThrottleEvery: time.Second},
		}
		f := faults[plan.IntN(len(faults))]
		if f.Connections == 0 {
			f.Connections = 1 + plan.IntN(3)
		}
		s.sim.Devo.Fail(f)
		s.breaks += 6 // each connection of both senders, and those that follow
		time.Sleep(time.Duration(1+plan.IntN(5)) * time.Second)
	default:
		faults := []simulator.Fault{
			simulator.Unauthorized(), simulator.TooManyRequests(1), simulator.TooManyRequests(-1), simulator.Unavailable(503), simulator.Garbage(),
			{Cut: 300}, {Reset: true}, {RejectToken: true}, {ExtraTotal: 3}, {Truncated: true},
		}
		f := faults[plan.IntN(len(faults))]
		f.Answers = 1 + plan.IntN(3)
		s.sim.Graph.Fail(f)
		time.Sleep(time.Duration(1+plan.IntN(3)) * time.Second)
	}
}

func (s *separate) killOne(name string) {
	s.kill(s.services[name])
	s.doubt(name)
	s.run(name)
}

// doubt counts what may put alerts in doubt.
func (s *separate) doubt(name string) {
	if strings.HasPrefix(name, senderProgram) {
		s.breaks++
	}
}
