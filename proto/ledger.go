package proto

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Proof is how an output confirms delivery.
type Proof string

// The proofs; see the ADR on confirmation.
const (
	ProofHalfClose Proof = "half-close" // the peer's program read everything, shown by a clean half-close
	ProofUnproved  Proof = "unproved"   // the peer's TCP has it and nothing disturbed the connection for 60 s
)

// Ledger is one sender process's record in an output's delivery ledger: what it may have written and
// what it knows to be confirmed. Only that process writes the record, and always before the step that
// the record speaks of: Written before the bytes leave, Confirmed before the acknowledgement. So after
// any crash the records of all processes together say for every sequence of UNIQUE:
//
//	sequence <= Floor of any record        confirmed; acknowledge, never send
//	in Confirmed of any record             confirmed; acknowledge, never send
//	in Written of any record               may have arrived; send again, count as possibly resent
//	in none                                never left; send
//
// That holds without trusting the consumer's acknowledgements, which the server may forget in a crash.
type Ledger struct {
	Instance  string    // in: the process, unique per start
	Updated   time.Time // up
	Floor     uint64    // fl: every sequence up to here is confirmed (or in DEAD) at this output
	Written   Sequences // wr: above Floor, written and not yet confirmed
	Confirmed Sequences // co: above Floor, confirmed or in DEAD
	Proof     Proof     // pr
	Counters  Counters  // n…
}

// Counters are a ledger's totals since the output was created; they only grow.
type Counters struct {
	Confirmed uint64 // nc: events confirmed
	Resent    uint64 // nr: events sent again although they may have arrived
	Dead      uint64 // nd: events in the output's dead letters
	Rotations uint64 // no: connections rotated
	Unclean   uint64 // nu: connections that ended without confirmation
}

// Add adds o to c.
func (c *Counters) Add(o Counters) {
	c.Confirmed += o.Confirmed
	c.Resent += o.Resent
	c.Dead += o.Dead
	c.Rotations += o.Rotations
	c.Unclean += o.Unclean
}

// Sub takes o, an earlier value of c, off c.
func (c *Counters) Sub(o Counters) {
	c.Confirmed -= o.Confirmed
	c.Resent -= o.Resent
	c.Dead -= o.Dead
	c.Rotations -= o.Rotations
	c.Unclean -= o.Unclean
}

// Encode returns the record as msgpack.
func (l *Ledger) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&b)
	enc.UseCompactInts(true)
	w := fieldWriter{enc: enc}
	w.do(enc.EncodeMapLen(12))
	w.int("v", SchemaMajor)
	w.text("in", l.Instance)
	w.int("up", nanos(l.Updated))
	w.int("fl", int64(l.Floor))
	w.do(enc.EncodeString("wr"))
	w.do(l.Written.EncodeMsgpack(enc))
	w.do(enc.EncodeString("co"))
	w.do(l.Confirmed.EncodeMsgpack(enc))
	w.text("pr", string(l.Proof))
	w.int("nc", int64(l.Counters.Confirmed))
	w.int("nr", int64(l.Counters.Resent))
	w.int("nd", int64(l.Counters.Dead))
	w.int("no", int64(l.Counters.Rotations))
	w.int("nu", int64(l.Counters.Unclean))
	if w.err != nil {
		return nil, fmt.Errorf("encode ledger record of %s: %w", l.Instance, w.err)
	}
	return b.Bytes(), nil
}

// DecodeLedger reads what [Ledger.Encode] wrote. A record of a newer major version or a damaged one is
// an error ([ErrNewerMajor], [ErrMalformed]): the sender must not guess what was delivered.
func DecodeLedger(data []byte) (*Ledger, error) {
	l := &Ledger{}
	var major int
	err := readMap(data, func(dec *mapReader, key string) (err error) {
		switch key {
		case "v":
			major, err = dec.DecodeInt()
		case "in":
			l.Instance, err = dec.DecodeString()
		case "up":
			l.Updated, err = decodeTime(dec.Decoder)
		case "fl":
			l.Floor, err = dec.DecodeUint64()
		case "wr":
			err = l.Written.DecodeMsgpack(dec.Decoder)
		case "co":
			err = l.Confirmed.DecodeMsgpack(dec.Decoder)
		case "pr":
			var s string
			s, err = dec.DecodeString()
			l.Proof = Proof(s)
		case "nc":
			l.Counters.Confirmed, err = dec.DecodeUint64()
		case "nr":
			l.Counters.Resent, err = dec.DecodeUint64()
		case "nd":
			l.Counters.Dead, err = dec.DecodeUint64()
		case "no":
			l.Counters.Rotations, err = dec.DecodeUint64()
		case "nu":
			l.Counters.Unclean, err = dec.DecodeUint64()
		default:
			err = skip(dec.Decoder, maxDepth)
		}
		return err
	})
	switch {
	case major > SchemaMajor:
		return nil, fmt.Errorf("ledger record: %w: %d", ErrNewerMajor, major)
	case err != nil:
		return nil, fmt.Errorf("ledger record: %w: %w", ErrMalformed, err)
	case major < 1 || l.Instance == "":
		return nil, fmt.Errorf("ledger record: %w: %w", ErrMalformed, errors.New("version or instance is missing"))
	}
	return l, nil
}
