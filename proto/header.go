package proto

import "strconv"

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
// recognised, another pull of the same row is not (that is dedup's work).
func RawMsgID(s Source, generation uint64, pullingID int64, page, row int) string {
	b := make([]byte, 0, 96)
	b = append(b, s.Token()...)
	b = append(b, '/')
	b = strconv.AppendUint(b, generation, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, pullingID, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(page), 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(row), 10)
	return string(b)
}

// UniqueMsgID names a first sighting in UNIQUE's duplicate window, which is a second net only.
func UniqueMsgID(generation uint64, hash string) string {
	return strconv.FormatUint(generation, 10) + "/" + hash
}
