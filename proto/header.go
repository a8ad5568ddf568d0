package proto

import (
	"strconv"
	"strings"
)

// HeaderTraceparent and HeaderTracestate carry the W3C trace context. Header lookups are case-sensitive
// on the bus, so these exact spellings are the contract (W3C Trace Context names them in lower case).
const (
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
)

// HeaderRawSequence is on a message of RAW that was put there again: the sequence under which it was there first.
// A claim that names that one is the message's own.
const HeaderRawSequence = "Raw-Sequence"

// HeaderAgain is on a message of UNIQUE whose alert may have been sent before, from a message that was lost. Its
// value says nothing.
const HeaderAgain = "Alert-Again"

// RawMsgID names one publication of one row: the same page published again after an unknown outcome is
// recognised, another pull of the same row is not (that is dedup's work). It ends in the row's hash, so that the row
// can be claimed without its envelope being read; see [RawClaimKey].
func RawMsgID(s Source, generation uint64, pullingID int64, page, row int, hash string) string {
	b := make([]byte, 0, 128)
	b = append(b, s.Token()...)
	b = append(b, '/')
	b = strconv.AppendUint(b, generation, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, pullingID, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(page), 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(row), 10)
	b = append(b, '/')
	b = append(b, hash...)
	return string(b)
}

// RawClaimKey is the key in the hashes bucket of the row that a message of RAW holds, by its subject and its
// Nats-Msg-Id alone; ok is false where these do not tell.
func RawClaimKey(subject, msgID string) (key string, ok bool) {
	source, isRaw := strings.CutPrefix(subject, "alerts.raw.")
	parts := strings.Split(msgID, "/")
	if !isRaw || len(parts) != 6 || parts[0] != source || !validHash(parts[5]) {
		return "", false
	}
	if _, err := strconv.ParseUint(parts[1], 10, 64); err != nil {
		return "", false
	}
	return source + "." + parts[1] + "." + parts[5], true
}

// UniqueMsgID names a first sighting in UNIQUE's duplicate window, which is a second net only.
func UniqueMsgID(generation uint64, hash string) string {
	return strconv.FormatUint(generation, 10) + "/" + hash
}
