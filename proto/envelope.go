package proto

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// SchemaMajor and SchemaMinor version the envelope. A new minor adds fields that old readers may
// ignore. A new major is one that an old reader must not touch: it leaves the message in its stream and
// says that it has to be upgraded ([ErrNewerMajor]).
const (
	SchemaMajor = 1
	SchemaMinor = 0
)

// Errors of [DecodeEnvelope].
var (
	// ErrNewerMajor: the message is whole but of a newer major version. Leave it in the stream.
	ErrNewerMajor = errors.New("envelope of a newer major version")
	// ErrMalformed: no envelope. Make a dead letter of it.
	ErrMalformed = errors.New("malformed envelope")
)

// Envelope is one alert on its way through RAW and UNIQUE; dedup passes the bytes on unchanged. It
// holds everything that the frame at Devo is made of, so that sending it again, from any machine and at
// any time, gives the same bytes.
//
// On the wire it is a msgpack map with short text keys (given at each field); readers ignore keys they
// do not know, and times are nanoseconds since the Unix epoch in UTC: a time before 1678 is none, one
// after 2262 is the last that fits.
type Envelope struct {
	Row         []byte    // r, or z as an S2 block: the row as Azure sent it, masked where configured
	Hash        string    // h: what dedup claims, see Hasher
	HashVersion int       // hv: algorithm of Hash
	OtherHashes []string  // oh: the same alert under algorithms that Hash replaces; looked up, never claimed
	AlertID     string    // id: lower-cased resource id
	EventTime   time.Time // et: start of the alert; zero where the row has no usable one
	Source      Source    // in, ii, sv
	Scope       string    // sc: subscription id, lower-cased; may be empty
	PullingID   int64     // pi: epoch milliseconds of the pull, @devo_pulling_id
	PullStart   time.Time // ps: start of the pull, the frame's date
	Generation  uint64    // g: generation of the source, see the ADR on generations
	FetchTime   time.Time // ft: when the answer that held the row arrived
	Host        string    // ho: host name in the frame
	Tag         string    // tg: Devo table
	Environment string    // ev: @devo_environment; empty when not configured
	ClaimOnly   bool      // co: claim the hash, send nothing
	Major       int       // v
	Minor       int       // m

	packed []byte // the row as it was read, if it was packed
}

// Encode returns e as msgpack with this package's schema version. It never fails for an Envelope with
// valid UTF-8 text; it does not keep e.Row.
func (e *Envelope) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(e.Row) + len(e.AlertID) + 320)
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&b)
	enc.UseCompactInts(true)

	fields := 16
	for _, present := range []bool{len(e.OtherHashes) > 0, !e.EventTime.IsZero(), e.Environment != "", e.ClaimOnly} {
		if present {
			fields++
		}
	}
	w := fieldWriter{enc: enc}
	w.do(enc.EncodeMapLen(fields))
	// The versions come first so that a reader meets them before anything it may not understand.
	w.int("v", SchemaMajor)
	w.int("m", SchemaMinor)
	w.text("h", e.Hash)
	w.int("hv", int64(e.HashVersion))
	w.text("id", e.AlertID)
	w.text("in", e.Source.Input)
	w.text("ii", e.Source.InputID)
	w.text("sv", e.Source.Service)
	w.text("sc", e.Scope)
	w.int("pi", e.PullingID)
	w.int("ps", nanos(e.PullStart))
	w.int("g", int64(e.Generation))
	w.int("ft", nanos(e.FetchTime))
	w.text("ho", e.Host)
	w.text("tg", e.Tag)
	if !e.EventTime.IsZero() {
		w.int("et", nanos(e.EventTime))
	}
	if len(e.OtherHashes) > 0 {
		w.texts("oh", e.OtherHashes)
	}
	if e.Environment != "" {
		w.text("ev", e.Environment)
	}
	if e.ClaimOnly {
		w.bool("co", true)
	}
	w.row(e.Row)
	if w.err != nil {
		return nil, fmt.Errorf("encode envelope of %s: %w", e.AlertID, w.err)
	}
	return b.Bytes(), nil
}

// DecodeEnvelope reads what [Envelope.Encode] wrote, now or by an older or newer minor version.
//
// Errors: one that wraps [ErrNewerMajor] (leave the message where it is) or [ErrMalformed] (dead
// letter). The returned Row is a part of data, which must
// not be changed while it is in use.
func DecodeEnvelope(data []byte) (*Envelope, error) {
	e, err := DecodeEnvelopeMeta(data)
	if err != nil {
		return nil, err
	}
	if e.packed != nil {
		if e.Row, err = unpack(e.packed); err != nil {
			return nil, fmt.Errorf("%w: field z: %w", ErrMalformed, err)
		}
		e.packed = nil
	}
	return e, nil
}

// DecodeEnvelopeMeta is [DecodeEnvelope] for who does not need the row: it is not unpacked, and Row is only
// set where it was stored unpacked.
func DecodeEnvelopeMeta(data []byte) (*Envelope, error) {
	e := &Envelope{}
	err := readMap(data, e.field)
	switch {
	case e.Major > SchemaMajor:
		// Judged before err: a newer major may well hold what this reader cannot parse.
		return nil, fmt.Errorf("%w: %d.%d, this program reads %d.x; upgrade it", ErrNewerMajor, e.Major, e.Minor, SchemaMajor)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, e.complete()
}

func (e *Envelope) complete() error {
	missing := ""
	switch {
	case e.Major < 1:
		missing = "v (schema version)"
	case len(e.Row) == 0 && len(e.packed) == 0:
		missing = "r or z (row)"
	case e.Hash == "":
		missing = "h (hash)"
	case e.Source.Input == "" || e.Source.Service == "":
		missing = "in, sv (source)"
	case e.Generation == 0:
		missing = "g (generation)"
	default:
		if !validHash(e.Hash) {
			return fmt.Errorf("%w: hash %q is not %d characters of base64url", ErrMalformed, e.Hash, hashLength)
		}
		// They become parts of subjects too, where a wildcard would find what is not meant.
		for _, h := range e.OtherHashes {
			if !validHash(h) {
				return fmt.Errorf("%w: other hash %q is not %d characters of base64url", ErrMalformed, h, hashLength)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: field %s is missing", ErrMalformed, missing)
}

func (e *Envelope) field(dec *mapReader, key string) (err error) {
	switch key {
	case "v":
		e.Major, err = dec.DecodeInt()
	case "m":
		e.Minor, err = dec.DecodeInt()
	case "r":
		e.Row, err = dec.bytes()
	case "z":
		e.packed, err = dec.bytes()
	case "h":
		e.Hash, err = dec.DecodeString()
	case "hv":
		e.HashVersion, err = dec.DecodeInt()
	case "oh":
		e.OtherHashes, err = decodeTexts(dec.Decoder)
	case "id":
		e.AlertID, err = dec.DecodeString()
	case "et":
		e.EventTime, err = decodeTime(dec.Decoder)
	case "in":
		e.Source.Input, err = dec.DecodeString()
	case "ii":
		e.Source.InputID, err = dec.DecodeString()
	case "sv":
		e.Source.Service, err = dec.DecodeString()
	case "sc":
		e.Scope, err = dec.DecodeString()
	case "pi":
		e.PullingID, err = dec.DecodeInt64()
	case "ps":
		e.PullStart, err = decodeTime(dec.Decoder)
	case "g":
		e.Generation, err = dec.DecodeUint64()
	case "ft":
		e.FetchTime, err = decodeTime(dec.Decoder)
	case "ho":
		e.Host, err = dec.DecodeString()
	case "tg":
		e.Tag, err = dec.DecodeString()
	case "ev":
		e.Environment, err = dec.DecodeString()
	case "co":
		e.ClaimOnly, err = dec.DecodeBool()
	default:
		err = skip(dec.Decoder, maxDepth)
	}
	return err
}
