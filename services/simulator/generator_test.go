package simulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

func TestGeneratorIsDeterministic(t *testing.T) {
	o := simulator.GeneratorOptions{Seed: 42, Spread: time.Hour}
	a, b := simulator.NewGenerator(o).Rows(200), simulator.NewGenerator(o).Rows(200)
	o.Seed++
	c := simulator.NewGenerator(o).Rows(200)
	same := 0
	for i := range a {
		if !bytes.Equal(a[i].JSON, b[i].JSON) {
			t.Fatalf("alert %d differs:\n%s\n%s", i, a[i].JSON, b[i].JSON)
		}
		if bytes.Equal(a[i].JSON, c[i].JSON) {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d alerts of another seed are the same", same)
	}
}

// Whatever a collector can trip over must occur among a few thousand alerts.
func TestGeneratorVariety(t *testing.T) {
	g := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 1, Start: epoch, Spread: time.Hour})
	want := map[string]*regexp.Regexp{
		"indented":           regexp.MustCompile("\n\t\t\""),
		"beyond 2^53":        regexp.MustCompile(`90071992547\d{5}`),
		"1.0":                regexp.MustCompile(`:\s*1\.0\b`),
		"exponent":           regexp.MustCompile(`1\.50E\+2`),
		"not ASCII":          regexp.MustCompile(`[^\x00-\x7f]`),
		"escaped unicode":    regexp.MustCompile(`\\u[0-9a-f]{4}`),
		"escaped line feed":  regexp.MustCompile(`\\n`),
		"quotes":             regexp.MustCompile(`\\"`),
		"backslash":          regexp.MustCompile(`\\\\`),
		"#":                  regexp.MustCompile(`#129`),
		"key with a space":   regexp.MustCompile(`"User Name"`),
		"key with a $":       regexp.MustCompile(`"\$id"`),
		"no fraction":        regexp.MustCompile(`"startTimeUtc":"[^".]*Z"`),
		"one digit":          regexp.MustCompile(`"startTimeUtc":"[^"]*\.\dZ"`),
		"seven digits":       regexp.MustCompile(`"startTimeUtc":"[^"]*\.\d{7}Z"`),
		"other case":         regexp.MustCompile(`/providers/microsoft\.iotsecurity/`),
		"id last":            regexp.MustCompile(`"id":"[^"]*"}$`),
		"systemData":         regexp.MustCompile(`"lastModifiedAt"`),
		"engine":             regexp.MustCompile(`"MALWARE"`),
		"another engine":     regexp.MustCompile(`"OPERATIONAL"`),
		"first subscription": regexp.MustCompile(simulator.DefaultSubscriptions()[0]),
		"last subscription":  regexp.MustCompile(simulator.DefaultSubscriptions()[2]),
	}
	seen := map[string]bool{}
	starts := map[time.Time]int{}
	ids := map[string]bool{}
	size := 0
	const n = 3000
	for _, row := range g.Rows(n) {
		if !json.Valid(row.JSON) {
			t.Fatalf("not JSON: %s", row.JSON)
		}
		start, ok := row.Start()
		if !ok || start.Before(epoch.Add(-time.Second)) || !start.Before(epoch.Add(time.Hour)) {
			t.Fatalf("start %v", start)
		}
		starts[start]++
		ids[row.ID()] = true
		size += len(row.JSON)
		for name, re := range want {
			seen[name] = seen[name] || re.Match(row.JSON)
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("never: %s", name)
		}
	}
	if len(ids) != n || len(starts) == n {
		t.Errorf("%d ids and %d start times of %d alerts", len(ids), len(starts), n)
	}
	if mean := size / n; mean < 1350 || mean > 1650 {
		t.Errorf("an alert has %d bytes on average, want about 1500", mean)
	}
}

func TestPlainAlertsAndSize(t *testing.T) {
	g := simulator.NewGenerator(simulator.GeneratorOptions{Plain: true, Size: 4000})
	for _, row := range g.Rows(500) {
		if bytes.ContainsAny(row.JSON, "\t\n") || bytes.ContainsFunc(row.JSON, func(r rune) bool { return r > '~' }) {
			t.Fatalf("not plain: %s", row.JSON)
		}
		if len(row.JSON) < 3700 || len(row.JSON) > 4400 {
			t.Fatalf("%d bytes, want about 4000", len(row.JSON))
		}
	}
}

func TestOddities(t *testing.T) {
	g := simulator.NewGenerator(simulator.GeneratorOptions{})
	for _, odd := range []simulator.Oddity{simulator.NoID, simulator.NullStart, simulator.NoStart, simulator.GarbageStart, simulator.Huge} {
		row := g.Odd(odd)
		_, started := row.Start()
		if !json.Valid(row.JSON) || (row.ID() == "") != (odd == simulator.NoID) {
			t.Errorf("%s: id %q", odd, row.ID())
		}
		if started != (odd == simulator.NoID || odd == simulator.Huge) {
			t.Errorf("%s: started %v", odd, started)
		}
		if (len(row.JSON) > 9<<20) != (odd == simulator.Huge) {
			t.Errorf("%s: %d bytes", odd, len(row.JSON))
		}
	}
}

func TestChangedKeepsIdentity(t *testing.T) {
	for _, row := range simulator.NewGenerator(simulator.GeneratorOptions{Seed: 3}).Rows(200) {
		after := simulator.Changed(row, epoch.Add(time.Hour))
		before, _ := row.Start()
		start, ok := after.Start()
		if !json.Valid(after.JSON) || after.ID() != row.ID() || !ok || !start.Equal(before) || bytes.Equal(after.JSON, row.JSON) {
			t.Fatalf("before %s\nafter  %s", row.JSON, after.JSON)
		}
	}
}

func TestFeed(t *testing.T) {
	a := newAzure(t)
	g := simulator.NewGenerator(simulator.GeneratorOptions{ChangeEvery: 5, RepeatEvery: 5, LateEvery: 10, LateBy: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	added := make(chan int)
	go func() { added <- g.Feed(ctx, a.graph, 2000) }()
	eventually(t, "500 alerts", func() bool { return a.graph.Len() > 500 })
	cancel()
	n := <-added
	distinct := map[string]bool{}
	for _, row := range a.graph.Rows() {
		distinct[row.ID()] = true
	}
	if len(distinct) >= n || len(distinct) == a.graph.Len() {
		t.Errorf("%d alerts fed, %d rows of %d ids: none late or none repeated", n, a.graph.Len(), len(distinct))
	}
	a.graph.SetClockOffset(2 * time.Hour)
	for _, row := range a.graph.Rows() {
		distinct[row.ID()] = true
	}
	if len(distinct) != n {
		t.Errorf("%d ids after the late ones came, want %d", len(distinct), n)
	}
}
