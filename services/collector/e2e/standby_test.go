//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// own gives a service a configuration of its own: the common one with changes, as pairs of old and new. It is to be called before
// the service runs.
func (s *separate) own(name string, edits ...string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "config.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(string(text), edits[i]) {
			s.t.Fatalf("the configuration has no %q", edits[i])
		}
		text = []byte(strings.Replace(string(text), edits[i], edits[i+1], 1))
	}
	if err := os.WriteFile(filepath.Join(s.dir, name+".yaml"), text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// join runs one more service.
func (s *separate) join(name string) {
	s.t.Helper()
	s.names = append(s.names, name)
	s.run(name)
}

// The active fetcher is cut off from the bus: first its packets are held back and arrive when another fetcher has long
// taken over, then its connections are closed. It gives up by itself, and what comes late undoes nothing.
func TestStandbyPartitioned(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 1000}, "dedup-1", "sender-1")
	bus := fmt.Sprintf("nats://127.0.0.1:%d", s.port)
	links := map[string]*link{}
	for _, name := range []string{"fetcher-1", "fetcher-2"} {
		links[name] = newLink(t, net.JoinHostPort("127.0.0.1", fmt.Sprint(s.port)))
		s.own(name, bus, "nats://"+links[name].addr)
		s.join(name)
	}
	end := s.feed(20)
	s.flows()
	var slowest time.Duration
	for _, part := range []func(*link){(*link).stall, (*link).cut, (*link).stall} {
		active := s.active()
		begun := time.Now()
		part(links[active])
		eventually(t, "another fetcher to be active", func() bool { return s.active() != active })
		s.flows()
		slowest = max(slowest, time.Since(begun))
		links[active].mend()
		s.services[active].says("standing by: another fetcher is active")
		slowest = max(slowest, s.flows())
	}
	end()
	if a := s.settle(slowest); a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again", a.repeats)
	}
	s.stop()
}

// Two inputs of one principal, each in a fetcher of its own, and a third fetcher that stands by for both: under Azure's
// real quota and as much work as it allows no answer is ever 429, whoever starts, stops, is killed, is frozen or takes over.
func TestStandbyInputsShareAQuota(t *testing.T) {
	t.Parallel()
	subscriptions := simulator.DefaultSubscriptions()
	s := newSeparate(t, simulator.Options{Backfill: 4000, Quota: simulator.AzureQuota()}, "dedup-1", "sender-1")
	// Small pages make many requests.
	s.sim.Graph.SetResponseLimit(200_000)
	common, err := os.ReadFile(filepath.Join(s.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, first, _ := strings.Cut(string(common), "inputs:\n")
	scope := func(block, name, id string, subs ...string) string {
		return strings.NewReplacer("  defender_for_iot:", "  "+name+":", `"23453"`, `"`+id+`"`,
			"request_period_in_seconds: 1\n", "request_period_in_seconds: 1\n        subscriptions: ["+strings.Join(subs, ", ")+"]\n").Replace(block)
	}
	one := scope(first, "defender_for_iot", "23453", subscriptions[0])
	two := scope(first, "defender_for_iot_b", "23454", subscriptions[1:]...)
	s.own("fetcher-1", first, one)
	s.own("fetcher-2", first, two)
	s.own("fetcher-3", first, one+two)
	end := s.feed(20)
	s.join("fetcher-1")
	s.flows()
	var slowest time.Duration
	s.join("fetcher-2")
	s.services["fetcher-2"].says("The request quota of this principal is divided by 2 active inputs")
	s.services["fetcher-1"].says("The request quota of this principal is divided by 2 active inputs")
	s.join("fetcher-3")
	slowest = max(slowest, s.flows())
	s.services["fetcher-3"].says("standing by: another fetcher is active")
	s.kill(s.services["fetcher-1"])
	s.services["fetcher-3"].says("took the lease over")
	slowest = max(slowest, s.flows())
	s.services["fetcher-2"].stop() // fetcher-3 has both now
	s.run("fetcher-1")
	eventually(t, "both inputs to be in one fetcher", func() bool { return len(s.services["fetcher-3"].Log.Lines("Pull Started")) > 0 })
	s.run("fetcher-2")
	slowest = max(slowest, s.flows())
	s.services["fetcher-3"].pause(pauseTime) // both go to the others
	slowest = max(slowest, s.flows())
	time.Sleep(20 * time.Second)
	slowest = max(slowest, s.flows())
	end()
	a := s.settle(slowest)
	if a.repeats != 0 || a.resent != 0 {
		t.Errorf("%d alerts came again", a.repeats)
	}
	stats := s.sim.Graph.Stats()
	t.Logf("%d requests, %d of them answered 429", stats.Queries, stats.Throttled)
	if stats.Throttled > 0 {
		t.Errorf("%d of %d requests were answered 429", stats.Throttled, stats.Queries)
	}
	s.stop()
}
