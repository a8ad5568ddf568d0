package proto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// maxFields bounds a map's length before it is believed, so that a damaged length cannot make the reader
// spin; the schemas have about twenty fields.
const maxFields = 1024

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

// readMap calls field for each key of the one msgpack map that data must be; field reads or skips the
// value. A length that data cannot hold is refused before anything is allocated for it.
func readMap(data []byte, field func(dec *msgpack.Decoder, key string) error) error {
	r := bytes.NewReader(data)
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(r)
	n, err := dec.DecodeMapLen()
	if err != nil {
		return fmt.Errorf("not a map: %w", err)
	}
	if n < 0 || n > maxFields {
		return fmt.Errorf("a map of %d fields", n)
	}
	for i := 0; i < n; i++ {
		key, err := dec.DecodeString()
		if err != nil {
			return fmt.Errorf("key of field %d: %w", i, err)
		}
		if err := field(dec, key); err != nil {
			return fmt.Errorf("field %q: %w", key, err)
		}
	}
	if _, err := dec.PeekCode(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the end")
	}
	return nil
}

func decodeTime(dec *msgpack.Decoder) (time.Time, error) {
	ns, err := dec.DecodeInt64()
	if err != nil {
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
