package resourcegraph

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindowQuery(t *testing.T) {
	utc := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		from, to time.Time
		want     string
	}{
		"open": {utc, time.Time{}, "| where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z)\n"},
		"closed": {utc, utc.Add(time.Hour), "| where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z)" +
			" and todatetime(properties.startTimeUtc) < datetime(2026-11-20T11:00:00.0000000Z)\n"},
		"rounded outwards": {utc.Add(199), utc.Add(201), "| where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000001Z)" +
			" and todatetime(properties.startTimeUtc) < datetime(2026-11-20T10:00:00.0000003Z)\n"},
		"another zone": {utc.In(time.FixedZone("", 7200)), time.Time{}, "| where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			want := "iotsecurityresources\n| where type =~ 'microsoft.iotsecurity/locations/devicegroups/alerts'\n" + tc.want +
				"| order by todatetime(properties.startTimeUtc) asc, id asc"
			if got := WindowQuery(tc.from, tc.to); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestNullStartQuery(t *testing.T) {
	want := "iotsecurityresources\n| where type =~ 'microsoft.iotsecurity/locations/devicegroups/alerts'\n" +
		"| where isnull(todatetime(properties.startTimeUtc))\n| order by id asc"
	if got := NullStartQuery(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The literals of a window hold every instant of the window, and less than a tick more.
func TestWindowQueryLeavesNothingOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		to := from.Add(time.Duration(rapid.Int64Range(1, 1e15).Draw(t, "length")))
		var got []time.Time
		for _, part := range strings.Split(WindowQuery(from, to), "datetime(")[1:] {
			text, _, _ := strings.Cut(part, ")")
			if at, err := time.Parse(tickLayout, text); err == nil {
				got = append(got, at)
			}
		}
		if len(got) != 2 || got[0].After(from) || from.Sub(got[0]) >= tick || got[1].Before(to) || got[1].Sub(to) >= tick {
			t.Fatalf("[%s, %s) became %v", from.UTC(), to.UTC(), got)
		}
	})
}
