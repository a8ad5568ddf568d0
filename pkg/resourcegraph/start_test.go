package resourcegraph

import (
	"testing"
	"time"
)

func TestParseStart(t *testing.T) {
	at := func(ns int) time.Time { return time.Date(2026, 11, 20, 9, 58, 41, ns, time.UTC) }
	for in, want := range map[string]time.Time{
		"2026-11-20T09:58:41Z":            at(0),
		"2026-11-20T09:58:41":             at(0),
		"2026-11-20T09:58:41.1Z":          at(100_000_000),
		"2026-11-20T09:58:41.1270000Z":    at(127_000_000),
		"2026-11-20T09:58:41.1234567":     at(123_456_700),
		"2026-11-20T09:58:41.123456789Z":  at(123_456_789),
		"2026-11-20T11:58:41.5+02:00":     at(500_000_000),
		"2026-11-20T04:28:41-05:30":       at(0),
		"2026-11-20T09:58:41.1234567890Z": {},
		"2026-11-20T09:58:41.Z":           {},
		"2026-11-20T09:58:41,5Z":          {},
		"2026-11-20t09:58:41z":            {},
		"2026-11-20 09:58:41Z":            {},
		"2026-11-20T9:58:41Z":             {},
		"2026-11-20T09:58:41+0200":        {},
		"2026-11-20T09:58:41 Z":           {},
		"2026-11-20T09:58:41ZZ":           {},
		"2026-13-20T09:58:41Z":            {},
		"2026-02-30T09:58:41Z":            {},
		"2026-11-20T09:58:60Z":            {},
		"2026-11-20T09:58:41+99:99":       {},
		"2026-11-20":                      {},
		"/Date(1700000000)/":              {},
		"":                                {},
		"١٢٣٤-١١-٢٠T09:58:41Z":            {},
	} {
		if got := parseStart(in); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// Whatever parses is what time.Parse says it is, and prints and parses to itself.
func FuzzParseStart(f *testing.F) {
	for _, s := range []string{"2026-11-20T09:58:41Z", "2026-11-20T09:58:41.1234567+02:00", "2026-11-20T09:58:41,5Z", "2026-11-20T09:58:41.", "9999-12-31T23:59:59.999999999-23:59"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := parseStart(s)
		if got.IsZero() {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			want, err = time.Parse(time.RFC3339Nano, s+"Z")
		}
		if err != nil || !want.Equal(got) {
			t.Fatalf("%q gave %s, time.Parse %s (%v)", s, got, want, err)
		}
		if again := parseStart(got.Format(time.RFC3339Nano)); got.Year() >= 0 && got.Year() <= 9999 && !again.Equal(got) {
			t.Fatalf("%q gave %s, printed and parsed %s", s, got, again)
		}
	})
}
