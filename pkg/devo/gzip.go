package devo

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// MaxMember is the most that [NewGzip] takes for the plain bytes of a member: 10 MiB, as the known
// collector's compression_buffer_in_bytes.
const MaxMember = 10 << 20

// Gzip packs frames into gzip members (RFC 1952), which Devo's endpoints read between plain frames: the
// first bytes of a member, 1f 8b, can begin no frame. Nothing announces a member and nothing else frames
// it, so plain frames and members may follow each other on one connection in any order.
//
// It keeps no frames: what was appended is complete. It is safe for concurrent use; the compressors, of
// about 1 MB each, are shared and given back to the garbage collector when they are not in use.
type Gzip struct {
	level   int
	member  int
	writers sync.Pool // of *gzip.Writer
}

// NewGzip returns a Gzip for level, 1 (fastest) to 9 (smallest), and members of at most member plain
// bytes, 1 to [MaxMember]. The error names what is out of bounds.
func NewGzip(level, member int) (*Gzip, error) {
	if level < gzip.BestSpeed || level > gzip.BestCompression {
		return nil, fmt.Errorf("gzip level %d is not between %d and %d", level, gzip.BestSpeed, gzip.BestCompression)
	}
	if member < 1 || member > MaxMember {
		return nil, fmt.Errorf("gzip members of %d bytes are not between 1 and %d", member, MaxMember)
	}
	return &Gzip{level: level, member: member}, nil
}

// AppendMembers appends frames, each with its line break, to dst as gzip members and returns the extended
// slice. A member holds whole frames: as many as fit its plain bytes, or a single one that is larger. It
// appends at most the length of frames and about 100 bytes a member, whatever they hold.
//
// Unpacked one after the other the members are frames again, byte for byte.
func (g *Gzip) AppendMembers(dst, frames []byte) []byte {
	z, _ := g.writers.Get().(*gzip.Writer)
	if z == nil {
		// The level is in bounds, which is all that this can complain of.
		z, _ = gzip.NewWriterLevel(nil, g.level)
	}
	defer g.writers.Put(z)
	for len(frames) > 0 {
		n := g.take(frames)
		out := &appender{dst}
		z.Reset(out)
		_, err := z.Write(frames[:n])
		if err == nil {
			err = z.Close()
		}
		if err == nil {
			dst = out.b
		} else {
			// Cannot happen, since an appender takes everything; if it does, the frames themselves are as good.
			dst = append(dst, frames[:n]...)
		}
		frames = frames[n:]
	}
	return dst
}

// take returns how many bytes of frames go into the next member.
func (g *Gzip) take(frames []byte) int {
	if len(frames) <= g.member {
		return len(frames)
	}
	if i := bytes.LastIndexByte(frames[:g.member], '\n'); i >= 0 {
		return i + 1
	}
	if i := bytes.IndexByte(frames[g.member:], '\n'); i >= 0 {
		return g.member + i + 1
	}
	return len(frames)
}

// appender is a writer that never fails.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
