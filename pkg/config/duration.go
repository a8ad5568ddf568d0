package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// day is 24 hours: all times here are UTC, which knows no shorter or longer day.
const day = 24 * time.Hour

// Duration is a length of time in the file: 720h, 90m, 1h30m, 5s, 250ms or whole days, 30d.
type Duration time.Duration

// durationPattern is what [Duration.UnmarshalText] takes, for the schema.
const durationPattern = `^(([0-9]+(\.[0-9]+)?(h|m|s|ms))+|[0-9]+d)$`

// Std is d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the standard library's form.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is [Duration.String].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what the type's comment lists; it fails on anything else, on a negative length
// and on one beyond 292 years.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || time.Duration(n) > time.Duration(1<<63-1)/day {
			return fmt.Errorf("a length of time such as 720h, 90m, 5s or 30d")
		}
		*d = Duration(time.Duration(n) * day)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("a length of time such as 720h, 90m, 5s or 30d")
	}
	*d = Duration(v)
	return nil
}

// Period is the window of a [RequestsLimit]: a whole number and a unit, s, m, h, d, w (7 days),
// M (30 days) or y (365 days). Not to be confused with [Duration], which has other units.
type Period time.Duration

// periodPattern is what [Period.UnmarshalText] takes, for the schema.
const periodPattern = `^[0-9]+[smhdwMy]$`

// Std is p as the standard library's type.
func (p Period) Std() time.Duration { return time.Duration(p) }

// String is the standard library's form.
func (p Period) String() string { return time.Duration(p).String() }

// UnmarshalText reads what the type's comment lists; it fails on anything else, on 0 and on a window
// beyond 292 years.
func (p *Period) UnmarshalText(text []byte) error {
	units := map[byte]time.Duration{
		's': time.Second, 'm': time.Minute, 'h': time.Hour,
		'd': day, 'w': 7 * day, 'M': 30 * day, 'y': 365 * day,
	}
	errAllowed := fmt.Errorf("a number above 0 and one of s, m, h, d, w, M, y, such as 5s or 1d")
	if len(text) < 2 {
		return errAllowed
	}
	unit := units[text[len(text)-1]]
	n, err := strconv.ParseUint(string(text[:len(text)-1]), 10, 62)
	if err != nil || unit == 0 || n == 0 || n > uint64(time.Duration(1<<63-1)/unit) {
		return errAllowed
	}
	*p = Period(time.Duration(n) * unit)
	return nil
}

// Sync is when the embedded server brings what it stored to the disk. The zero value is always.
type Sync struct {
	// Interval is the longest time that stored data waits in the system's cache; 0: none does,
	// every acknowledgement follows an fsync.
	Interval time.Duration
}

// syncPattern is what [Sync.UnmarshalText] takes, for the schema.
const syncPattern = `^(always|([0-9]+(\.[0-9]+)?(h|m|s|ms))+|[0-9]+d)$`

// Always reports whether every acknowledgement follows an fsync.
func (s Sync) Always() bool { return s.Interval == 0 }

// String is always, or the interval.
func (s Sync) String() string {
	if s.Always() {
		return "always"
	}
	return s.Interval.String()
}

// MarshalText is [Sync.String].
func (s Sync) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads always or a [Duration] above 0.
func (s *Sync) UnmarshalText(text []byte) error {
	if string(text) == "always" {
		*s = Sync{}
		return nil
	}
	var d Duration
	if err := d.UnmarshalText(text); err != nil || d == 0 {
		return fmt.Errorf("always, or a length of time above 0 such as 2m")
	}
	s.Interval = d.Std()
	return nil
}
