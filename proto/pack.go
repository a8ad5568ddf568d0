package proto

import (
	_ "embed"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
)

const (
	// packFrom is the size from which bodies are packed.
	packFrom = 128
	// maxBody bounds an unpacked body: more than any message can hold unpacked, and little enough that a
	// damaged length cannot take the memory.
	maxBody = 64 << 20
	// maxKept bounds a buffer that is kept for the next envelope; a larger one was for a large row.
	maxKept = 1 << 20
)

// alertDictionary is text that alerts have in common: the members of Resource Graph's rows in the orders and
// layouts in which they come, published titles and descriptions. An alert of 1.5 KB shrinks to a third
// for 2 us instead of to 60 % (measured), and what the streams write, sync, copy and cache with it.
//
// It is a part of the contract: what is packed with it can only be read with it. A better one gets a
// number of its own, and this one stays for as long as messages that use it may lie in a stream.
//
//go:embed dictionary/alert-1.txt
var alertDictionary []byte

// dictionaries by the number that an envelope names them with. The repeat offset that a block begins with is
// the start of the last row in the text.
var dictionaries = map[int]*s2.Dict{
	dictionaryAlert: s2.MakeDict(alertDictionary, []byte(`{"id":"/subscriptions/`)),
}

// Numbers of dictionaries.
const (
	dictionaryNone  = 0 // not packed
	dictionaryAlert = 1
)

var packBuffers = sync.Pool{New: func() any { return new([]byte) }}

// body writes body packed, or as it is when that is not shorter.
func (w *fieldWriter) body(body []byte) {
	if len(body) >= packFrom {
		buffer, _ := packBuffers.Get().(*[]byte)
		defer func() {
			if cap(*buffer) <= maxKept {
				packBuffers.Put(buffer)
			}
		}()
		if n := s2.MaxEncodedLen(len(body)); n > cap(*buffer) {
			*buffer = make([]byte, n)
		}
		packed := dictionaries[dictionaryAlert].Encode((*buffer)[:cap(*buffer)], body)
		if len(packed) < len(body) {
			w.int("d", dictionaryAlert)
			w.bytes("b", packed)
			return
		}
	}
	w.int("d", dictionaryNone)
	w.bytes("b", body)
}

// unpack is the inverse of packing; what was not packed is returned as it is. A dictionary that this program
// does not have is one of a newer program.
func (r *EnvelopeReader) unpack(packed []byte, dictionary int) ([]byte, error) {
	if dictionary == dictionaryNone {
		return packed, nil
	}
	dict, known := dictionaries[dictionary]
	if !known {
		return nil, fmt.Errorf("%w: packed with dictionary %d, which this program does not have; upgrade it", ErrNewerMajor, dictionary)
	}
	n, err := s2.DecodedLen(packed)
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxBody {
		return nil, fmt.Errorf("a body of %d bytes", n)
	}
	// The room for a large row is not kept.
	room := r.body
	if n > len(room) {
		room = make([]byte, n)
		if n <= maxKept {
			r.body = room
		}
	}
	body, err := dict.Decode(room[:n], packed)
	if err != nil {
		return nil, err
	}
	if len(body) != n {
		return nil, errors.New("the body is shorter than it says")
	}
	return body, nil
}
