package proto

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
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
// On the wire it is a msgpack map with short text keys (given at each field) in two layers: what dedup
// decides by, and in field b the body, a map of its own, as an S2 block with dictionary number d unless that
// is 0, which only the reader of the alert unpacks. Readers ignore keys they do not know, and times are
// nanoseconds since the Unix epoch in UTC: a time before 1678 is none, one after 2262 is the last that fits.
type Envelope struct {
	Major       int      // v
	Minor       int      // m
	Hash        string   // h: what dedup claims, see HashIdentity and HashVersionOf
	HashVersion int      // hv: algorithm of Hash
	OtherHashes []string // oh: the same alert under algorithms that Hash replaces; looked up, never claimed
	Source      Source   // in, ii, sv
	Generation  uint64   // g: generation of the source, see the ADR on generations
	ClaimOnly   bool     // co: claim the hash, send nothing

	// The body.
	Row         []byte    // r: the row as Azure sent it, masked where configured
	AlertID     string    // id: lower-cased resource id
	EventTime   time.Time // et: start of the alert; zero where the row has no usable one
	Scope       string    // sc: subscription id, lower-cased; may be empty
	PullingID   int64     // pi: epoch milliseconds of the pull, @devo_pulling_id
	PullStart   time.Time // ps: start of the pull, the frame's date
	FetchTime   time.Time // ft: when the answer that held the row arrived
	Host        string    // ho: host name in the frame
	Tag         string    // tg: Devo table
	Environment string    // ev: @devo_environment; empty when not configured

	body       []byte // b
	dictionary int    // d
}

var bodyBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Encode returns e as msgpack with this package's schema version. It never fails for an Envelope with
// valid UTF-8 text; it does not keep e.Row.
func (e *Envelope) Encode() ([]byte, error) {
	body, _ := bodyBuffers.Get().(*bytes.Buffer)
	defer func() {
		if body.Cap() <= maxKept {
			bodyBuffers.Put(body)
		}
	}()
	body.Reset()
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(body)
	enc.UseCompactInts(true) // a reset forgets it
	w := fieldWriter{enc: enc}
	e.writeBody(&w)

	var b bytes.Buffer
	b.Grow(body.Len()/2 + 160)
	enc.Reset(&b)
	enc.UseCompactInts(true)
	e.writeHead(&w)
	w.body(body.Bytes())
	if w.err != nil {
		return nil, fmt.Errorf("encode envelope of %s: %w", e.AlertID, w.err)
	}
	return b.Bytes(), nil
}

// writeHead begins the outer map; only the body is missing behind it.
func (e *Envelope) writeHead(w *fieldWriter) {
	w.fields(10, len(e.OtherHashes) > 0, e.ClaimOnly)
	// The versions come first so that a reader meets them before anything it may not understand.
	w.int("v", envelopeMajor)
	w.int("m", SchemaMinor)
	w.text("h", e.Hash)
	w.int("hv", int64(e.HashVersion))
	w.text("in", e.Source.Input)
	w.text("ii", e.Source.InputID)
	w.text("sv", e.Source.Service)
	w.int("g", int64(e.Generation))
	if len(e.OtherHashes) > 0 {
		w.texts("oh", e.OtherHashes)
	}
	if e.ClaimOnly {
		w.bool("co", true)
	}
}

func (e *Envelope) writeBody(w *fieldWriter) {
	w.fields(8, !e.EventTime.IsZero(), e.Environment != "")
	w.text("id", e.AlertID)
	w.text("sc", e.Scope)
	w.int("pi", e.PullingID)
	w.int("ps", nanos(e.PullStart))
	w.int("ft", nanos(e.FetchTime))
	w.text("ho", e.Host)
	w.text("tg", e.Tag)
	if !e.EventTime.IsZero() {
		w.int("et", nanos(e.EventTime))
	}
	if e.Environment != "" {
		w.text("ev", e.Environment)
	}
	w.bytes("r", e.Row)
}

// DecodeEnvelope reads what [Envelope.Encode] wrote, now or by an older or newer minor version.
//
// Errors: one that wraps [ErrNewerMajor] (leave the message where it is) or [ErrMalformed] (dead
// letter). The returned Row may be a part of data, which must not be changed while it is in use.
func DecodeEnvelope(data []byte) (*Envelope, error) {
	return new(EnvelopeReader).Read(data)
}

// EnvelopeReader reads one envelope after the other with less work for the memory than [DecodeEnvelope]. The
// zero value is ready. It is not safe for concurrent use.
type EnvelopeReader struct {
	fields mapReader
	body   []byte
}

// Read is [DecodeEnvelope], except that the returned Row is good until the next Read only.
func (r *EnvelopeReader) Read(data []byte) (*Envelope, error) {
	e, err := r.ReadHead(data)
	if err != nil {
		return nil, err
	}
	body, err := r.unpack(e.body, e.dictionary)
	switch {
	case errors.Is(err, ErrNewerMajor):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: field b: %w", ErrMalformed, err)
	}
	if err := r.fields.read(body, e.bodyField); err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrMalformed, err)
	}
	if len(e.Row) == 0 {
		return nil, fmt.Errorf("%w: field r (row) is missing in the body", ErrMalformed)
	}
	e.body, e.dictionary = nil, dictionaryNone
	return e, nil
}

// ReadHead is [EnvelopeReader.Read] for who does not need the body: it is neither unpacked nor judged, and its
// fields are left empty.
func (r *EnvelopeReader) ReadHead(data []byte) (*Envelope, error) {
	if r.fields.Decoder == nil {
		r.fields.Decoder = msgpack.NewDecoder(&r.fields.rest)
	}
	e := &Envelope{}
	err := r.fields.read(data, e.headField)
	switch {
	case e.Major > envelopeMajor:
		// Judged before err: a newer major may well hold what this reader cannot parse.
		return nil, fmt.Errorf("%w: %d.%d, this program reads %d.x; upgrade it", ErrNewerMajor, e.Major, e.Minor, envelopeMajor)
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
	case len(e.body) == 0:
		missing = "b (body)"
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

func (e *Envelope) headField(dec *mapReader, key string) (err error) {
	switch key {
	case "v":
		e.Major, err = dec.DecodeInt()
	case "m":
		e.Minor, err = dec.DecodeInt()
	case "h":
		e.Hash, err = dec.DecodeString()
	case "hv":
		e.HashVersion, err = dec.DecodeInt()
	case "oh":
		e.OtherHashes, err = decodeTexts(dec.Decoder)
	case "in":
		e.Source.Input, err = dec.repeated()
	case "ii":
		e.Source.InputID, err = dec.repeated()
	case "sv":
		e.Source.Service, err = dec.repeated()
	case "g":
		e.Generation, err = dec.DecodeUint64()
	case "co":
		e.ClaimOnly, err = dec.DecodeBool()
	case "d":
		e.dictionary, err = dec.DecodeInt()
	case "b":
		e.body, err = dec.bytes()
	default:
		err = skip(dec.Decoder, maxDepth)
	}
	return err
}

func (e *Envelope) bodyField(dec *mapReader, key string) (err error) {
	switch key {
	case "r":
		e.Row, err = dec.bytes()
	case "id":
		e.AlertID, err = dec.DecodeString()
	case "et":
		e.EventTime, err = decodeTime(dec.Decoder)
	case "sc":
		e.Scope, err = dec.repeated()
	case "pi":
		e.PullingID, err = dec.DecodeInt64()
	case "ps":
		e.PullStart, err = decodeTime(dec.Decoder)
	case "ft":
		e.FetchTime, err = decodeTime(dec.Decoder)
	case "ho":
		e.Host, err = dec.repeated()
	case "tg":
		e.Tag, err = dec.repeated()
	case "ev":
		e.Environment, err = dec.repeated()
	default:
		err = skip(dec.Decoder, maxDepth)
	}
	return err
}
