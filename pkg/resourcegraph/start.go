package resourcegraph

import "time"

// parseStart reads an alert's start: RFC 3339 with 0 to 9 fractional digits, as Azure writes a time with
// seconds or with .NET's 100 ns; without a zone it is UTC. Anything else gives the zero time. The shape
// is checked first because time.Parse takes more: a comma before the fraction, ten and more digits,
// and hours of one digit.
func parseStart(s string) time.Time {
	const seconds = len("2006-01-02T15:04:05")
	if len(s) < seconds {
		return time.Time{}
	}
	for i, shape := range []byte("0000-00-00T00:00:00") {
		if shape == '0' && !digit(s[i]) || shape != '0' && s[i] != shape {
			return time.Time{}
		}
	}
	zone := s[seconds:]
	if zone != "" && zone[0] == '.' {
		n := 1
		for n < len(zone) && digit(zone[n]) {
			n++
		}
		if n == 1 || n > 10 {
			return time.Time{}
		}
		zone = zone[n:]
	}
	switch {
	case zone == "":
		s += "Z"
	case zone == "Z", len(zone) == 6 && (zone[0] == '+' || zone[0] == '-'):
	default:
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func digit(b byte) bool { return '0' <= b && b <= '9' }
