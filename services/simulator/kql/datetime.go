package kql

import (
	"strings"
	"time"
)

// Ticks is a point in time or a span as Kusto counts it: in units of 100 ns,
// for a point since 0001-01-01T00:00:00Z.
type Ticks int64

const (
	tick          = 100 * time.Nanosecond
	perSecond     = Ticks(time.Second / tick)
	unixEpochSecs = 62_135_596_800 // seconds from year 1 to 1970
)

// TicksOf returns t cut to whole ticks.
func TicksOf(t time.Time) Ticks {
	return Ticks(t.Unix()+unixEpochSecs)*perSecond + Ticks(t.Nanosecond()/int(tick))
}

// SpanOf returns d cut to whole ticks.
func SpanOf(d time.Duration) Ticks { return Ticks(d / tick) }

// Time returns the point in UTC.
func (t Ticks) Time() time.Time {
	secs, rest := t/perSecond, t%perSecond
	if rest < 0 {
		secs, rest = secs-1, rest+perSecond
	}
	return time.Unix(int64(secs)-unixEpochSecs, int64(rest)*int64(tick)).UTC()
}

// String prints the point as Kusto does: seven fractional digits and Z.
func (t Ticks) String() string { return t.Time().Format("2006-01-02T15:04:05.0000000Z") }

// ParseDateTime reads an ISO 8601 date with an optional time ("T" or a space
// between them), 0 to 9 fractional digits (cut to 7) and an optional zone;
// without one it is UTC. It is false for anything else; todatetime() is null
// then.
func ParseDateTime(s string) (Ticks, bool) {
	s = strings.TrimSpace(s)
	year, ok1 := digits(s, 0, 4)
	month, ok2 := digits(s, 5, 2)
	day, ok3 := digits(s, 8, 2)
	if !ok1 || !ok2 || !ok3 || s[4] != '-' || s[7] != '-' || year == 0 {
		return 0, false
	}
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	rest := s[10:]
	var hour, minute, second int
	var fraction Ticks
	var zone time.Duration
	if rest != "" {
		if rest[0] != 'T' && rest[0] != 't' && rest[0] != ' ' {
			return 0, false
		}
		var ok bool
		if hour, minute, second, fraction, rest, ok = clock(rest[1:]); !ok {
			return 0, false
		}
		if zone, ok = offset(rest); !ok {
			return 0, false
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Add(-zone)
	if t.Year() < 1 || t.Year() > 9999 {
		return 0, false
	}
	return TicksOf(t) + fraction, true
}

// clock reads hh:mm[:ss[.fffffff]] and returns what follows.
func clock(s string) (hour, minute, second int, fraction Ticks, rest string, ok bool) {
	hour, ok = digits(s, 0, 2)
	if !ok || len(s) < 5 || s[2] != ':' {
		return 0, 0, 0, 0, "", false
	}
	if minute, ok = digits(s, 3, 2); !ok {
		return 0, 0, 0, 0, "", false
	}
	rest = s[5:]
	if strings.HasPrefix(rest, ":") {
		if second, ok = digits(rest, 1, 2); !ok {
			return 0, 0, 0, 0, "", false
		}
		rest = rest[3:]
		if strings.HasPrefix(rest, ".") {
			n := 0
			for unit := perSecond / 10; 1+n < len(rest) && rest[1+n] >= '0' && rest[1+n] <= '9'; n++ {
				fraction += Ticks(rest[1+n]-'0') * unit
				unit /= 10
			}
			if n < 1 || n > 9 {
				return 0, 0, 0, 0, "", false
			}
			rest = rest[1+n:]
		}
	}
	return hour, minute, second, fraction, rest, hour < 24 && minute < 60 && second < 60
}

func offset(s string) (time.Duration, bool) {
	if s == "" || s == "Z" || s == "z" {
		return 0, true
	}
	hours, ok1 := digits(s, 1, 2)
	minutes, ok2 := digits(s, 4, 2)
	if !ok1 || !ok2 || len(s) != 6 || s[3] != ':' || hours > 14 || minutes > 59 {
		return 0, false
	}
	d := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	switch s[0] {
	case '+':
		return d, true
	case '-':
		return -d, true
	}
	return 0, false
}

func digits(s string, from, n int) (int, bool) {
	if len(s) < from+n {
		return 0, false
	}
	v := 0
	for _, c := range []byte(s[from : from+n]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
