package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/pkg/fault"

	"pgregory.net/rapid"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestIncident(t *testing.T) {
	refused := func(port int) error {
		return fmt.Errorf("read tcp 127.0.0.1:%d->127.0.0.1:443: connection reset", port)
	}
	type step struct {
		after  time.Duration
		err    error // nil: Resolve
		report bool  // Report(nil)
		attrs  []any
	}
	many := make([]step, 0, 100)
	var firstLines []string
	for n := range 40 {
		text := "error " + strings.Repeat("x", n+1)
		many = append(many, step{after: time.Second, err: errors.New(text)})
		if n < maxTexts {
			firstLines = append(firstLines, "  ERROR MainProcess::MainThread -> Devo failed: "+text)
		}
	}
	for name, tc := range map[string]struct {
		options []IncidentOption
		steps   []step
		want    []string // without the time
	}{
		"never failed": {steps: []step{{}, {}, {report: true}}},
		"once, counted, resolved": {
			steps: []step{{err: refused(41234)}, {after: time.Second, err: refused(41236)}, {after: time.Second, err: refused(9)}, {after: 500 * time.Millisecond}, {}},
			want: []string{
				"  ERROR MainProcess::MainThread -> Devo failed: read tcp 127.0.0.1:41234->127.0.0.1:443: connection reset",
				"   INFO MainProcess::MainThread -> Devo works again after 3 failures in 2.5s",
			},
		},
		"fails again after it worked": {
			steps: []step{{err: refused(1)}, {after: time.Minute}, {after: time.Second, err: refused(1)}, {}},
			want: []string{
				"  ERROR MainProcess::MainThread -> Devo failed: read tcp 127.0.0.1:1->127.0.0.1:443: connection reset",
				"   INFO MainProcess::MainThread -> Devo works again after 1 failure in 1m0s",
				"  ERROR MainProcess::MainThread -> Devo failed: read tcp 127.0.0.1:1->127.0.0.1:443: connection reset",
				"   INFO MainProcess::MainThread -> Devo works again after 1 failure in 0s",
			},
		},
		"a change is news, taking turns is not": {
			steps: []step{{err: errors.New("a")}, {err: errors.New("b")}, {err: errors.New("a")}, {err: errors.New("b")}},
			want: []string{
				"  ERROR MainProcess::MainThread -> Devo failed: a",
				"  ERROR MainProcess::MainThread -> Devo failed: b",
			},
		},
		"summary after ten minutes, measured from the last line": {
			steps: []step{
				{err: refused(1)}, {after: summaryPeriod - 1, err: refused(2)}, {after: 1, err: refused(3)},
				{after: time.Minute, err: errors.New("b")}, {after: summaryPeriod - time.Second, err: refused(4)}, {after: time.Second, err: refused(5)},
			},
			want: []string{
				"  ERROR MainProcess::MainThread -> Devo failed: read tcp 127.0.0.1:1->127.0.0.1:443: connection reset",
				"  ERROR MainProcess::MainThread -> Devo is still failing, 3 times since 2026-11-22T19:04:06.175: read tcp 127.0.0.1:3->127.0.0.1:443: connection reset",
				"  ERROR MainProcess::MainThread -> Devo failed: b",
				"  ERROR MainProcess::MainThread -> Devo is still failing, 6 times since 2026-11-22T19:04:06.175: read tcp 127.0.0.1:5->127.0.0.1:443: connection reset",
			},
		},
		"hint, attributes, level": {
			options: []IncidentOption{IncidentLevel(slog.LevelWarn)},
			steps:   []step{{err: fault.API(403, "denied").WithHint("grant Reader"), attrs: []any{"output", "devo_1"}}},
			want:    []string{`WARNING MainProcess::MainThread -> Devo failed: ApiError [CODE:0403] reason: denied output=devo_1 hint="grant Reader"`},
		},
		"another code is news": {
			steps: []step{{err: fault.API(401, "x")}, {err: fault.API(403, "x")}, {err: fault.API(401, "x")}},
			want: []string{
				"  ERROR MainProcess::MainThread -> Devo failed: ApiError [CODE:0401] reason: x",
				"  ERROR MainProcess::MainThread -> Devo failed: ApiError [CODE:0403] reason: x",
			},
		},
		"an orderly stop is no failure": {steps: []step{{err: fault.ShuttingDown(errors.New("x"))}, {}}},
		"different texts are bounded":   {steps: many, want: firstLines},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			logger, _ := NewLogger(&out, FormatText, slog.LevelDebug)
			c := &clock{moment}
			i := NewIncident(logger, "Devo", append(tc.options, IncidentClock(c.Now))...)
			for _, s := range tc.steps {
				c.now = c.now.Add(s.after)
				if s.err != nil || s.report {
					i.Report(s.err, s.attrs...)
				} else {
					i.Resolve()
				}
			}
			var got []string
			for line := range strings.Lines(out.String()) {
				got = append(got, strings.TrimSuffix(line[len(lineTime)+1:], "\n"))
			}
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestIncidentLeavesTheCallersAttributesAlone(t *testing.T) {
	logger, _ := NewLogger(&bytes.Buffer{}, FormatText, slog.LevelInfo)
	backing := []any{"a", 1, "kept"}
	NewIncident(logger, "x").Report(fault.WithHint(errors.New("y"), "z"), backing[:2]...)
	if backing[2] != "kept" {
		t.Errorf("the caller's array holds %v now", backing[2])
	}
}

func TestIncidentConcurrently(t *testing.T) {
	var out lines
	logger, _ := NewLogger(&out, FormatText, slog.LevelInfo)
	i := NewIncident(logger, "Devo")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range 100 {
				i.Report(fmt.Errorf("try %d", n))
			}
		})
	}
	wg.Wait()
	i.Resolve()
	got := out.all()
	if len(got) != 2 || !strings.Contains(got[0], "Devo failed: try ") || !strings.Contains(got[1], "after 800 failures in ") {
		t.Errorf("got %q", got)
	}
}

func TestNormalise(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b string
		same bool
	}{
		{"ephemeral port", "write tcp 10.0.0.5:41234->1.2.3.4:443: broken pipe", "write tcp 10.0.0.5:50001->1.2.3.4:443: broken pipe", true},
		{"round robin address", "dial tcp 52.1.2.3:443: i/o timeout", "dial tcp 18.200.3.44:443: i/o timeout", true},
		{"IPv6", "dial tcp [2a01:4f8::1]:443: refused", "dial tcp [fe80::1%eth0]:8443: refused", true},
		{"durations", "timed out after 1.5s", "timed out after 250ms", true},
		{"compound durations", "wait 1m30s", "wait 45s", true},
		{"request id", "Trace ID: 4b8b1b3c-0d57-4f2e-9b1a-77aa00c41500 Timestamp: 2023-10-01 09:01:00Z", "Trace ID: aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee Timestamp: 2024-11-12 10:11:12Z", true},
		{"pointer", "at 0xc000123", "at 0xc000ffe", true},
		{"hash", "entry deadbeef01 gone", "entry 0123456789abcdef gone", true},
		{"sequence", "sequence 17", "sequence 18", true},
		{"large sequence that looks like a status", "rows 17:401", "rows 17:17", true},
		{"typed code", "[CODE:0401] x", "[CODE:0403] x", false},
		{"login code", "AADSTS7000215: x", "AADSTS7000222: x", false},
		{"status as a word", "unexpected status 503 Service", "unexpected status 500 Service", false},
		{"status after a colon", "StatusCode:503", "StatusCode:404", false},
		{"server or client", "HTTP 404", "HTTP 503", false},
		{"other words", "connection refused", "connection reset", false},
		{"other host name", "dial a.example:443", "dial b.example:443", false},
		{"beyond what is compared", strings.Repeat("x", maxCompared) + "a", strings.Repeat("x", maxCompared) + "b", true},
	} {
		if a, b := normalise(tc.a), normalise(tc.b); (a == b) != tc.same {
			t.Errorf("%s: %q and %q, want same=%v", tc.name, a, b, tc.same)
		}
	}
}

// Whatever the message, its numbers outside of codes make no difference.
func TestNormaliseIgnoresPorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.StringMatching(`[a-zA-Z ,;'\[\]\.\-]{0,30}`).Draw(t, "before")
		after := rapid.StringMatching(`[a-zA-Z ,;'\[\]\.\-]{0,30}`).Draw(t, "after")
		port := rapid.IntRange(1024, 65535)
		text := func(p int) string { return fmt.Sprintf("%s 127.0.0.1:%d->%s", before, p, after) }
		if a, b := normalise(text(port.Draw(t, "a"))), normalise(text(port.Draw(t, "b"))); a != b {
			t.Fatalf("%q differs from %q", a, b)
		}
	})
}

// No number is left but those of codes, and the work is bounded.
func FuzzNormalise(f *testing.F) {
	f.Add("write tcp 10.0.0.5:41234->[::1]:443: HTTP 503 AADSTS7000215 [CODE:0401] 1m30s 0xff deadbeef00")
	f.Add("4b8b1b3c-0d57-4f2e-9b1a-77aa00c41500")
	f.Add("status= 17, 4040 404a 1.404 404.1")
	codes := regexp.MustCompile(`AADSTS\d+|(?i:code|status)[:=]\s?\d+|\b[45]\d\d\b`)
	f.Fuzz(func(t *testing.T, text string) {
		got := normalise(text)
		if len(got) > min(len(text), maxCompared) {
			t.Fatalf("%d bytes became %d", len(text), len(got))
		}
		if rest := codes.ReplaceAllString(got, " "); strings.ContainsAny(rest, "0123456789") {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
