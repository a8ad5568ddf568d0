package proto

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Stages that write dead letters.
const (
	StageFetcher = "fetcher"
	StageDedup   = "dedup"
	StageSender  = "sender"
)

// DeadLetter is one message that could not be processed or delivered, with everything that is needed to
// find out why and to try again.
type DeadLetter struct {
	Stage    string    // st
	Output   string    // ou: the sender's output, else empty
	AlertID  string    // id: empty where none could be read
	Reason   string    // re: one line, no secret
	Attempts int       // at
	First    time.Time // ff: first failure
	Last     time.Time // lf: last failure
	Stream   string    // sm: stream the message came from; empty for the fetcher
	Sequence uint64    // sq: its sequence there; of the fetcher, which of the letters of a page that are equal and name no alert, from 0
	Payload  []byte    // pa: the message, or the row as Azure sent it; empty where a mask could not be applied
	// Claim (cl) is the sequence of RAW that the row's claim names, where that is not Sequence: the message was put
	// there again.
	Claim uint64
}

// Claimed is the sequence of RAW by which the letter's message owns its claim; 0 for a letter that is not of dedup.
func (d *DeadLetter) Claimed() uint64 {
	switch {
	case d.Stage != StageDedup || d.Stream != StreamRaw:
		return 0
	case d.Claim > 0:
		return d.Claim
	}
	return d.Sequence
}

// MsgID names the dead letter, so that writing it again after an unknown outcome is recognised.
func (d *DeadLetter) MsgID() string {
	id := d.Stage + "/" + d.Output + "/" + d.Stream + "/" + strconv.FormatUint(d.Sequence, 10)
	if d.Sequence == 0 || d.Stream == "" {
		id += "/" + HashIdentity(d.AlertID+"\x00"+string(d.Payload))
	}
	return id
}

// Subject is the letter's own: publishing it expects that it holds no message, so that the same letter is
// there once however often and however late it is written.
func (d *DeadLetter) Subject() string {
	return DeadPrefix(d.Stage, d.Output) + "." + encodeHash(sha256.Sum256([]byte(d.MsgID())))
}

// Encode returns the dead letter as msgpack.
func (d *DeadLetter) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&b)
	enc.UseCompactInts(true)
	w := fieldWriter{enc: enc}
	size := 11
	if d.Claim > 0 {
		size++
	}
	w.do(enc.EncodeMapLen(size))
	w.int("v", SchemaMajor)
	w.text("st", d.Stage)
	w.text("ou", d.Output)
	w.text("id", d.AlertID)
	w.text("re", d.Reason)
	w.int("at", int64(d.Attempts))
	w.int("ff", nanos(d.First))
	w.int("lf", nanos(d.Last))
	w.text("sm", d.Stream)
	w.int("sq", int64(d.Sequence))
	w.bytes("pa", d.Payload)
	if d.Claim > 0 {
		w.int("cl", int64(d.Claim))
	}
	if w.err != nil {
		return nil, fmt.Errorf("encode dead letter: %w", w.err)
	}
	return b.Bytes(), nil
}

// DecodeDeadLetter reads what [DeadLetter.Encode] wrote; errors wrap [ErrMalformed] or [ErrNewerMajor].
func DecodeDeadLetter(data []byte) (*DeadLetter, error) {
	d := &DeadLetter{}
	var major int
	err := readMap(data, func(dec *mapReader, key string) (err error) {
		switch key {
		case "v":
			major, err = dec.DecodeInt()
		case "st":
			d.Stage, err = dec.DecodeString()
		case "ou":
			d.Output, err = dec.DecodeString()
		case "id":
			d.AlertID, err = dec.DecodeString()
		case "re":
			d.Reason, err = dec.DecodeString()
		case "at":
			d.Attempts, err = dec.DecodeInt()
		case "ff":
			d.First, err = decodeTime(dec.Decoder)
		case "lf":
			d.Last, err = decodeTime(dec.Decoder)
		case "sm":
			d.Stream, err = dec.DecodeString()
		case "sq":
			d.Sequence, err = dec.DecodeUint64()
		case "pa":
			d.Payload, err = dec.bytes()
		case "cl":
			d.Claim, err = dec.DecodeUint64()
		default:
			err = skip(dec.Decoder, maxDepth)
		}
		return err
	})
	switch {
	case major > SchemaMajor:
		return nil, fmt.Errorf("dead letter: %w: %d", ErrNewerMajor, major)
	case err != nil:
		return nil, fmt.Errorf("dead letter: %w: %w", ErrMalformed, err)
	case major < 1 || d.Stage == "":
		return nil, fmt.Errorf("dead letter: %w: version or stage is missing", ErrMalformed)
	}
	return d, nil
}
