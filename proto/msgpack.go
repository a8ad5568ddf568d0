package proto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// maxFields bounds a map's length before it is believed, so that a damaged length cannot make the reader
// spin; the schemas have about twenty fields.
const maxFields = 1024

// maxDepth bounds the nesting of a value that is skipped. Skipping is recursive, and a stack that
// overflows ends the process: no recover catches it.
const maxDepth = 64

// fieldWriter writes map fields and keeps the first error.
type fieldWriter struct {
	enc *msgpack.Encoder
	err error
}

func (w *fieldWriter) do(err error) {
	if w.err == nil {
		w.err = err
	}
}

// fields begins a map of always fields and as many more as are present.
func (w *fieldWriter) fields(always int, present ...bool) {
	for _, p := range present {
		if p {
			always++
		}
	}
	w.do(w.enc.EncodeMapLen(always))
}

func (w *fieldWriter) text(key, v string) {
	w.do(w.enc.EncodeString(key))
	w.do(w.enc.EncodeString(v))
}

func (w *fieldWriter) int(key string, v int64) {
	w.do(w.enc.EncodeString(key))
	w.do(w.enc.EncodeInt(v))
}

func (w *fieldWriter) bool(key string, v bool) {
	w.do(w.enc.EncodeString(key))
	w.do(w.enc.EncodeBool(v))
}

func (w *fieldWriter) bytes(key string, v []byte) {
	w.do(w.enc.EncodeString(key))
	w.do(w.enc.EncodeBytes(v))
}

func (w *fieldWriter) texts(key string, v []string) {
	w.do(w.enc.EncodeString(key))
	w.do(w.enc.EncodeArrayLen(len(v)))
	for _, s := range v {
		w.do(w.enc.EncodeString(s))
	}
}

// mapReader reads the one msgpack map that a message must be. It may be used again and again.
type mapReader struct {
	*msgpack.Decoder
	data []byte
	rest bytes.Reader // the decoder reads it without a buffer of its own, so it says where the decoder is
	seen seenTexts
}

// readMap calls field for each key; field reads or skips the value. key is good until field returns. A
// length that data cannot hold is refused before anything is allocated for it.
func readMap(data []byte, field func(r *mapReader, key string) error) error {
	r := &mapReader{Decoder: msgpack.GetDecoder()}
	defer msgpack.PutDecoder(r.Decoder)
	return r.read(data, field)
}

func (r *mapReader) read(data []byte, field func(r *mapReader, key string) error) error {
	r.data = data
	r.rest.Reset(data)
	r.Reset(&r.rest)
	n, err := r.DecodeMapLen()
	if err != nil {
		return fmt.Errorf("not a map: %w", err)
	}
	if n < 0 || n > maxFields {
		return fmt.Errorf("a map of %d fields", n)
	}
	for i := 0; i < n; i++ {
		key, err := r.key()
		if err != nil {
			return fmt.Errorf("key of field %d: %w", i, err)
		}
		if err := field(r, key); err != nil {
			return fmt.Errorf("field %q: %w", key, err)
		}
	}
	if r.rest.Len() > 0 {
		return errors.New("bytes after the end")
	}
	return nil
}

// key reads a field's name. Our own are short texts of two bytes at most; taking those from a table
// instead of the heap saves an allocation for each field of each message.
func (r *mapReader) key() (string, error) {
	at := len(r.data) - r.rest.Len()
	if rest := r.data[at:]; len(rest) > 2 && msgpcode.IsFixedString(rest[0]) {
		if n := int(rest[0] & msgpcode.FixedStrMask); n == 1 || n == 2 && len(rest) > n {
			if known, ok := fieldNames[string(rest[1:1+n])]; ok {
				_, err := r.rest.Seek(int64(1+n), io.SeekCurrent)
				return known, err
			}
		}
	}
	return r.DecodeString()
}

// fieldNames are the keys of all schemas.
var fieldNames = func() map[string]string {
	names := map[string]string{}
	for name := range strings.FieldsSeq("v m b d r h hv oh id et in ii sv sc pi ps g ft ho tg ev co up fl wr pr nc nr nd no nu st ou re at ff lf sm sq pa") {
		names[name] = name
	}
	return names
}()

// bytes reads a byte string and returns the part of the message that holds it, without a copy.
func (r *mapReader) bytes() ([]byte, error) {
	n, err := r.DecodeBytesLen()
	if err != nil || n < 0 {
		return nil, err
	}
	at := len(r.data) - r.rest.Len()
	if n > r.rest.Len() {
		return nil, io.ErrUnexpectedEOF
	}
	_, err = r.rest.Seek(int64(n), io.SeekCurrent)
	return r.data[at : at+n : at+n], err
}

// repeated reads a text that most messages have in common, and allocates only for one not seen lately.
func (r *mapReader) repeated() (string, error) {
	b, err := r.bytes()
	if err != nil {
		return "", err
	}
	return r.seen.text(b), nil
}

// seenTexts are the texts met last.
type seenTexts struct {
	texts [8]string
	next  int
}

func (s *seenTexts) text(b []byte) string {
	for _, t := range s.texts {
		if t == string(b) {
			return t
		}
	}
	t := string(b)
	s.texts[s.next] = t
	s.next = (s.next + 1) % len(s.texts)
	return t
}

// skip reads over one value, lists and maps up to depth levels deep.
func skip(dec *msgpack.Decoder, depth int) error {
	c, err := dec.PeekCode()
	if err != nil {
		return err
	}
	n := 0
	switch {
	case msgpcode.IsFixedArray(c), c == msgpcode.Array16, c == msgpcode.Array32:
		n, err = dec.DecodeArrayLen()
	case msgpcode.IsFixedMap(c), c == msgpcode.Map16, c == msgpcode.Map32:
		n, err = dec.DecodeMapLen()
		n *= 2
	default:
		return dec.Skip()
	}
	if err != nil {
		return err
	}
	if depth == 0 {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	for range n {
		if err := skip(dec, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// The ends of what nanoseconds since the Unix epoch can say in 64 bits.
var (
	firstTime = time.Unix(0, math.MinInt64)
	lastTime  = time.Unix(0, math.MaxInt64)
)

// noTime stands for the zero time, and for every other that is too early.
const noTime = math.MinInt64

// nanos is t on the wire. Azure's rows hold whatever a sensor's clock says, so a time that does not fit
// must not wrap around into another.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(firstTime):
		return noTime
	case t.After(lastTime):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func decodeTime(dec *msgpack.Decoder) (time.Time, error) {
	ns, err := dec.DecodeInt64()
	if err != nil || ns == noTime {
		return time.Time{}, err
	}
	return time.Unix(0, ns).UTC(), nil
}

func decodeTexts(dec *msgpack.Decoder) ([]string, error) {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	if n > maxFields {
		return nil, fmt.Errorf("a list of %d texts", n)
	}
	var out []string
	for i := 0; i < n; i++ {
		s, err := dec.DecodeString()
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
