package config

import (
	"fmt"
	"strings"
	"time"
)

// StartTime is `start_time_in_utc`: an instant, and the text it was written as. The zero value means
// that the file has none. Compare instants with Time.Equal, never the texts: the same instant can be
// written in many ways.
type StartTime struct {
	// Time is the instant, in UTC.
	Time time.Time
	// Text is how it stands in the file.
	Text string
}

// IsZero reports whether the file has no start time.
func (t StartTime) IsZero() bool { return t.Text == "" }

// String is the text of the file.
func (t StartTime) String() string { return t.Text }

// MarshalText is the text of the file.
func (t StartTime) MarshalText() ([]byte, error) { return []byte(t.Text), nil }

// UnmarshalText reads RFC 3339 and what [parseInstant] lists besides.
func (t *StartTime) UnmarshalText(text []byte) error {
	instant, err := parseInstant(string(text))
	if err != nil {
		return err
	}
	*t = StartTime{Time: instant, Text: string(text)}
	return nil
}

// instantLayouts are the ways to write an instant. A fraction of a second may follow the seconds in
// each of them; those without an offset are UTC.
var instantLayouts = []string{
	time.RFC3339,
	"2006-01-02T15:04:05Z0700",
	"2006-01-02T15:04:05",
	"2006-01-02T15:04Z07:00",
	"2006-01-02T15:04",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05 Z07:00",
	"2006-01-02 15:04:05Z0700",
	"2006-01-02 15:04:05 Z0700",
	"2006-01-02 15:04:05 UTC",
	"2006-01-02 15:04:05",
	"2006-01-02 15:04",
	"2006-01-02",
	"2006/01/02 15:04:05",
	"2006/01/02",
	"20060102T150405Z",
	"20060102T150405",
	time.RFC1123,
	time.RFC1123Z,
	time.RFC850,
	time.ANSIC,
}

// parseInstant reads text by the first of [instantLayouts] that fits. Day and month are never guessed:
// 01/02/2023 is refused.
func parseInstant(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	// A lower-case t or z is allowed by RFC 3339, section 5.6.
	upper := strings.NewReplacer("t", "T", "z", "Z").Replace(text)
	for _, layout := range instantLayouts {
		for _, candidate := range []string{text, upper} {
			if t, err := time.Parse(layout, candidate); err == nil {
				return t.UTC(), nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("a date and time such as 2023-10-01T09:01:00Z or 2023-10-01 09:01:00")
}

// From is where a new output starts among the events that are kept.
type From struct {
	// Beginning: with the oldest event kept.
	Beginning bool
	// Time: with the first event stored at or after it. Zero together with Beginning false: with
	// what comes after the output was created.
	Time time.Time
}

// Now reports whether the output starts with what comes after it was created.
func (f From) Now() bool { return !f.Beginning && f.Time.IsZero() }

// String is now, beginning or the time in RFC 3339.
func (f From) String() string {
	switch {
	case f.Beginning:
		return "beginning"
	case f.Time.IsZero():
		return "now"
	default:
		return f.Time.Format(time.RFC3339Nano)
	}
}

// MarshalText is [From.String].
func (f From) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads now, beginning or a time in RFC 3339.
func (f *From) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "now":
		*f = From{}
	case "beginning":
		*f = From{Beginning: true}
	default:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || t.IsZero() {
			return fmt.Errorf("now, beginning or a time in RFC 3339 such as 2023-10-01T09:01:00Z")
		}
		*f = From{Time: t.UTC()}
	}
	return nil
}
