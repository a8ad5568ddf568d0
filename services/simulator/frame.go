package simulator

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

const (
	readBuffer = 256 << 10
	// maxFrame bounds a frame, and with it the memory of a connection.
	maxFrame = 64 << 20
)

// frameReader splits what a connection carries into frames. Three forms may
// alternate, told apart by a frame's first byte:
//
//	1f 8b ...       a gzip member, with frames of the other two forms in it
//	"123 <14>..."   octet-counted: that many bytes follow (RFC 6587, 3.4.1)
//	"<14>...\n"     up to the line feed (RFC 6587, 3.4.2)
type frameReader struct {
	r    *bufio.Reader
	long []byte // a frame that does not fit the buffer
	zip  *gzip.Reader
	in   *frameReader // of the gzip member
	// members is how many gzip members were read whole.
	members int64
	// inner is set within a member: there 1f 8b is nothing special.
	inner bool
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, readBuffer)}
}

// run calls emit with every whole frame, without its line feed, until the
// stream ends or emit fails. The slice is good until emit returns. tail is
// the number of bytes behind the last whole frame, as far as they were seen;
// err is never nil, and io.EOF at the stream's orderly end.
func (f *frameReader) run(emit func(frame []byte) error) (tail int, err error) {
	for {
		head, err := f.r.Peek(1)
		if err != nil {
			return 0, err
		}
		switch {
		case head[0] == 0x1f:
			tail, err = f.member(emit)
		case head[0] >= '1' && head[0] <= '9':
			tail, err = f.counted(emit)
		default:
			tail, err = f.line(emit)
		}
		if err != nil {
			return tail, err
		}
	}
}

func (f *frameReader) line(emit func([]byte) error) (tail int, err error) {
	part, err := f.r.ReadSlice('\n')
	if err == nil {
		return 0, emit(part[:len(part)-1])
	}
	f.long = f.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(f.long) > maxFrame {
			return len(f.long), fmt.Errorf("frame longer than %d bytes", maxFrame)
		}
		f.long = append(f.long, part...)
		part, err = f.r.ReadSlice('\n')
	}
	f.long = append(f.long, part...)
	if err != nil {
		return len(f.long), err
	}
	return 0, f.emitLong(emit, f.long[:len(f.long)-1])
}

// emitLong gives the memory of a very long frame back after use.
func (f *frameReader) emitLong(emit func([]byte) error, frame []byte) error {
	err := emit(frame)
	if cap(f.long) > 1<<20 {
		f.long = nil
	}
	return err
}

// counted reads "LENGTH SPACE FRAME"; digits without a space behind them
// begin an ordinary line.
func (f *frameReader) counted(emit func([]byte) error) (tail int, err error) {
	size, digits := 0, 0
	for {
		head, err := f.r.Peek(digits + 1)
		if err != nil {
			return len(head), err
		}
		c := head[digits]
		if c == ' ' {
			break
		}
		if c < '0' || c > '9' || digits == 9 {
			return f.line(emit)
		}
		size = size*10 + int(c-'0')
		digits++
	}
	if size > maxFrame {
		return digits + 1, fmt.Errorf("frame of %d bytes announced, at most %d are read", size, maxFrame)
	}
	if _, err := f.r.Discard(digits + 1); err != nil {
		return 0, err
	}
	if size <= f.r.Size() {
		frame, err := f.r.Peek(size)
		if err != nil {
			return digits + 1 + len(frame), err
		}
		if err := emit(bytes.TrimSuffix(frame, []byte("\n"))); err != nil {
			return 0, err
		}
		_, err = f.r.Discard(size)
		return 0, err
	}
	// Grown as the bytes come: an announced length alone takes no memory.
	var b bytes.Buffer
	n, err := io.CopyN(&b, f.r, int64(size))
	if err != nil {
		return digits + 1 + int(n), err
	}
	return 0, emit(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// member reads one gzip member. bufio.Reader is an io.ByteReader, so the
// decompressor takes no byte beyond it.
func (f *frameReader) member(emit func([]byte) error) (tail int, err error) {
	head, err := f.r.Peek(2)
	if err != nil {
		return len(head), err
	}
	if head[1] != 0x8b || f.inner {
		return f.line(emit)
	}
	if f.zip == nil {
		f.zip = new(gzip.Reader)
		f.in = &frameReader{r: bufio.NewReaderSize(nil, 64<<10), inner: true}
	}
	if err := f.zip.Reset(f.r); err != nil {
		return 1, ended(err)
	}
	f.zip.Multistream(false)
	f.in.r.Reset(f.zip)
	tail, err = f.in.run(emit)
	switch {
	case !errors.Is(err, io.EOF):
		return max(tail, 1), ended(err)
	case tail > 0:
		return tail, fmt.Errorf("gzip member ends within a frame")
	}
	f.members++
	return 0, nil
}

// ended makes the end of the stream within a gzip member an ordinary end; that
// it was too early is in the tail.
func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
