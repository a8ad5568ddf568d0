package devo

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/fault"
)

const (
	// priority is facility user (1) times eight plus severity informational (6), which Devo's own
	// SDK sends for every event.
	priority = "<14>"
	// dateLayout is the date that the known collector sends; Devo's receivers parse dates leniently.
	dateLayout = "2006-01-02 15:04:05.000"
	// maxTag is the longest tag that Devo's collector SDK accepts, in bytes.
	maxTag = 1024
	// maxHost is the longest host name of the DNS, in bytes.
	maxHost = 255
)

// Header is everything of a frame that is not the row. It is a plain value.
type Header struct {
	// Time is printed in UTC, cut to the millisecond. A resend carries the time of the first try, so
	// that its frame is the same byte for byte.
	Time time.Time
	// Host names the sending machine: printable ASCII without spaces, at most 255 bytes.
	Host string
	// Tag is the Devo table: printable ASCII without spaces and colons, at most 1,024 bytes.
	Tag string
	// Environment becomes the member @devo_environment; empty: no such member.
	Environment string
	// PullingID becomes the member @devo_pulling_id; empty: no such member.
	PullingID string
}

// Validate says what is wrong with the header, or nil. Call it once at start with the configured
// values: then [AppendFrame] never refuses a row for its header.
func (h *Header) Validate() error {
	if err := printable(h.Host, maxHost); err != nil {
		return fault.WithHint(fmt.Errorf("host name %q %w", h.Host, err), "give the machine a host name of letters, digits, dots and hyphens")
	}
	err := printable(h.Tag, maxTag)
	if err == nil && strings.IndexByte(h.Tag, ':') >= 0 {
		err = errors.New("contains a colon, which ends the tag")
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("devo tag %q %w", cut(h.Tag), err), "name a Devo table such as edr.microsoft_defender.iot_security.alert (override_tag)")
	}
	// A year of another length would change the date's width and with it where a receiver finds the host.
	if y := h.Time.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("frame date has the year %d, which four digits cannot hold", y)
	}
	return nil
}

// AppendFrame appends the frame of one event to dst and returns the extended slice:
//
//	<14>YYYY-MM-DD HH:MM:SS.mmm HOST TAG: {…row…,"@devo_environment":"…","@devo_pulling_id":"…"}\n
//
// The row must be one JSON object in UTF-8 (RFC 8259). Its bytes are kept as they are (numbers, order of
// members, escapes, blanks and tabs between tokens) with two exceptions: line breaks between tokens are
// left out, because a line break ends a frame, and the two members are added behind the last one. A row
// that already has a member of that name keeps it; JSON readers take the later one, which is ours.
//
// Guaranteed: exactly one line break, at the end. A row for which that cannot be had without changing
// what it says (a raw control character inside a string, which JSON forbids anyway), or that is not one
// JSON object, or a header that [Header.Validate] refuses, gives an error marked fault.Permanent and dst
// as it was; the caller makes a dead letter of the event.
//
// It allocates nothing when dst has room for the row and about 200 bytes more. It is safe for
// concurrent use on different dst.
func AppendFrame(dst []byte, h Header, row []byte) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return dst, fault.Permanent(err)
	}
	row = trimBlanks(row)
	if err := checkObject(row); err != nil {
		return dst, fault.Permanent(err)
	}

	dst = append(dst, priority...)
	dst = h.Time.UTC().AppendFormat(dst, dateLayout)
	dst = append(dst, ' ')
	dst = append(dst, h.Host...)
	dst = append(dst, ' ')
	dst = append(dst, h.Tag...)
	dst = append(dst, ": "...)

	members := row[:len(row)-1]
	dst = appendWithoutBreaks(dst, members)
	separator := len(trimBlanks(members)) > 1
	for _, m := range [...]struct{ name, value string }{
		{`"@devo_environment":`, h.Environment},
		{`"@devo_pulling_id":`, h.PullingID},
	} {
		if m.value == "" {
			continue
		}
		if separator {
			dst = append(dst, ',')
		}
		separator = true
		dst = append(dst, m.name...)
		dst = appendString(dst, m.value)
	}
	return append(dst, "}\n"...), nil
}

// appendWithoutBreaks appends valid JSON without its line breaks. They can only stand between tokens,
// where they mean nothing: JSON forbids them inside strings, and no two tokens that a blank must keep
// apart can follow each other in JSON.
func appendWithoutBreaks(dst, text []byte) []byte {
	for {
		i := indexBreak(text)
		if i < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		text = text[i+1:]
	}
}

// indexBreak returns the place of the first line feed or carriage return, or -1.
func indexBreak(text []byte) int {
	lf := bytes.IndexByte(text, '\n')
	if lf >= 0 {
		text = text[:lf]
	}
	if cr := bytes.IndexByte(text, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

// appendString appends s as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// printable refuses what would end a header field or not survive it.
func printable(s string, most int) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > most {
		return errors.New("is longer than " + strconv.Itoa(most) + " bytes")
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("contains %q; only printable ASCII without spaces is allowed", s[i:i+1])
		}
	}
	return nil
}

// cut shortens a text for a message.
func cut(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
