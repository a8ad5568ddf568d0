//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// Azure answers every kind of refusal and nonsense: each fails a pull with a typed error, said once, and the alerts
// flow again when it is over and the set-up after it has succeeded.
func TestAzureFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 500})
	p := w.run()
	end := w.feed(10)
	w.flows()
	answer := func(f simulator.Fault) func() {
		return func() {
			f.Answers = -1
			w.sim.Graph.Fail(f)
		}
	}
	mendGraph := w.sim.Graph.ClearFaults
	var slowest time.Duration
	for _, tt := range []struct {
		name       string
		fail, mend func()
		texts      []string
	}{
		{"401", answer(simulator.Unauthorized()), mendGraph, []string{"-> ApiError [CODE:0401] reason: Error during API call to"}},
		{"403", answer(simulator.Forbidden()), mendGraph, []string{"-> ApiError [CODE:0403] reason: Error during API call to", "Security Reader"}},
		{"429 with Retry-After", answer(simulator.TooManyRequests(1)), mendGraph, []string{"-> ApiError [CODE:0429] reason: Error during API call to", "quota"}},
		{"429 without Retry-After", answer(simulator.TooManyRequests(-1)), mendGraph, []string{"-> ApiError [CODE:0429] reason: Error during API call to"}},
		{"500", answer(simulator.Unavailable(500)), mendGraph, []string{"-> ApiError [CODE:0498] reason: Error during API call to"}},
		{"503", answer(simulator.Unavailable(503)), mendGraph, []string{"-> ApiError [CODE:0498] reason: Error during API call to"}},
		{"garbage", answer(simulator.Garbage()), mendGraph, []string{"-> PullError [CODE:0302]"}},
		{"an HTML page", answer(simulator.HTMLPage()), mendGraph, []string{"-> PullError [CODE:0302]"}},
		{"an empty JSON string", answer(simulator.Fault{Status: 200, Body: `""`}), mendGraph, []string{"-> PullError [CODE:0302]"}},
		{"a cut body", answer(simulator.Fault{Cut: 300}), mendGraph, []string{"-> PullError [CODE:03"}},
		{"a reset", answer(simulator.Fault{Reset: true}), mendGraph, []string{"-> PullError [CODE:0301]"}},
		{"a wrong secret", func() {
			w.sim.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: "another"})
			w.sim.Login.ExpireTokens()
		}, func() {
			w.sim.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: simulator.ClientSecret})
		}, []string{"-> SetupError [CODE:0101] reason: Failed to fetch OAuth token from", "AADSTS7000215", "client_secret is wrong"}},
	} {
		before := len(p.Log.Lines("ERROR", tt.texts[0]))
		tt.fail()
		eventually(t, tt.name+" to be logged", func() bool { return len(p.Log.Lines(append(tt.texts, "ERROR")...)) > before })
		if lines := p.Log.Lines("ERROR", tt.texts[0]); len(lines) != before+1 {
			t.Errorf("%s: %d lines, want 1:\n%v", tt.name, len(lines)-before, lines[before:])
		}
		tt.mend()
		slowest = max(slowest, w.flows())
	}
	if strings.Contains(p.Log.String(), simulator.ClientSecret) {
		t.Error("the client secret stands in the log")
	}
	end()
	w.healthy(p, slowest)
}

// What Azure refuses at the start is told by the names that people know, and tried again until it works.
func TestSetupFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fail, mend func(w *world)
		texts      []string
	}{
		"wrong secret": {
			func(w *world) { w.sim.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: "another"}) },
			func(w *world) {
				w.sim.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: simulator.ClientSecret})
			},
			[]string{"SetupError [CODE:0101] reason: Failed to fetch OAuth token from https://", "AADSTS7000215", "hint=", "client_secret is wrong"},
		},
		"no right": {
			func(w *world) { w.fails(simulator.Forbidden()) },
			func(w *world) { w.sim.Graph.ClearFaults() },
			[]string{"SetupError [CODE:0102] reason: Failed to fetch data from ", "Source is not pullable.", "hint=", "Security Reader"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{Backfill: 20})
			tt.fail(w)
			p := w.run()
			p.says(append(tt.texts, "ERROR")...)
			tt.mend(w)
			recovered := w.flows()
			if lines := p.Log.Lines("ERROR"); len(lines) != 1 {
				t.Errorf("%d error lines, want 1:\n%v", len(lines), lines)
			}
			w.healthy(p, recovered)
		})
	}
}

// Tokens that expire are renewed without a word.
func TestTokensExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 50})
	p := w.run()
	end := w.feed(10)
	w.flows()
	for range 3 {
		issued := w.sim.Login.Issued()
		w.sim.Login.ExpireTokens()
		eventually(t, "a new token", func() bool { return w.sim.Login.Issued() > issued })
		w.flows()
	}
	end()
	w.healthy(p, 0)
	if lines := p.Log.Lines("ERROR"); len(lines) > 0 {
		t.Errorf("errors about tokens that expired: %v", lines)
	}
}

// Rows that are not as they should be hold nothing up: what can be sent is sent, the rest is a dead letter.
func TestOddRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 200})
	for _, o := range []simulator.Oddity{simulator.NoID, simulator.Huge, simulator.NullStart, simulator.NoStart, simulator.GarbageStart} {
		w.sim.Graph.Add(w.sim.Generator.Odd(o))
	}
	p := w.run()
	end := w.feed(10)
	w.flows()
	eventually(t, "the dead letter", func() bool { return *w.status().DeadLetters > 0 })
	p.says("WARNING", "dead letters", "has no id")
	end()
	w.healthy(p, 0)
	if n := w.sim.Devo.Stats().Bytes; n < 10_000_000 {
		t.Errorf("%d bytes have arrived, fewer than the huge row has", n)
	}
	// Read again and again, it stays one letter, over a restart too.
	p = w.run()
	p.says("The data is up to date!")
	w.add(1)
	w.arrived()
	if n := *w.status().DeadLetters; n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	p.stop()
}
