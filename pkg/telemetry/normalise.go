package telemetry

import (
	"regexp"
	"strings"
)

// maxCompared bounds the work on one text; an error that holds a whole page differs within this or not at all.
const maxCompared = 2 << 10

// varying finds what may vary on each try, and the codes that must not be taken for it. The first
// alternative that fits wins:
//
//	AADSTS7000215, CODE:0401, status=503   codes: kept
//	8-4-4-4-12 hexadecimal digits          UUIDs, as of requests
//	[::1]:41234, [fe80::1%eth0]            IPv6 addresses
//	0x1f, 8 and more hexadecimal digits    pointers, hashes
//	1.5s, 1m30s, 250ms                     durations
//	127.0.0.1, 41234, 503                  numbers
var varying = regexp.MustCompile(`(AADSTS\d+|(?i:code|status)[:=]\s?\d+)` +
	`|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}` +
	`|\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%\w+)?\](?::\d+)?` +
	`|0x[0-9a-fA-F]+` +
	`|\b[0-9a-fA-F]{8,}\b` +
	`|(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|h|m|s))+\b` +
	`|\d+`)

// normalise returns text with everything that varies on each try replaced by #. An HTTP status that stands
// alone is a code, not a number.
func normalise(text string) string {
	text = text[:min(len(text), maxCompared)]
	var b strings.Builder
	last := 0
	for _, m := range varying.FindAllStringSubmatchIndex(text, -1) {
		start, end := m[0], m[1]
		if m[2] >= 0 || isStatus(text, start, end) {
			continue
		}
		b.WriteString(text[last:start])
		b.WriteByte('#')
		last = end
	}
	b.WriteString(text[last:])
	return b.String()
}

// isStatus reports whether text[start:end] is a number of 400 to 599 as a word of its own; part of an
// address, of a version or of a fraction it is none.
func isStatus(text string, start, end int) bool {
	if end-start != 3 || (text[start] != '4' && text[start] != '5') {
		return false
	}
	for _, c := range text[start:end] {
		if c < '0' || c > '9' {
			return false
		}
	}
	const joining = ".:-_/" // before: a port, a fraction, a range
	if start > 0 && (isWord(text[start-1]) || strings.IndexByte(joining, text[start-1]) >= 0) {
		return false
	}
	return end == len(text) || !isWord(text[end])
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
