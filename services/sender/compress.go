package sender

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
)

// samples is over how many alerts the load of an output is averaged, as in the known collector.
const samples = 1000

// Compression says when an output's frames go out as gzip members ([devo.Gzip]), and how.
type Compression struct {
	// Threshold is the load, from 0 to 1, from which on frames are compressed: below 0 always, above 1
	// never. The load is the mean, over the last 1,000 alerts taken from the stream, of how many waited
	// behind each, counted to 1,000 and divided by 1,000: 0 when each alert is sent as it comes, 1 when
	// a whole batch always waits.
	Threshold float64
	// Level is that of gzip, 1 to 9.
	Level int
	// MemberBytes is the most that a member holds of plain frames, 1 to 10 MiB; a larger frame has a
	// member of its own.
	MemberBytes int
}

// compressionOf gives the compression of an output; nil for one that never compresses. Only outputs over
// TLS do: what takes plain TCP, such as rsyslog, does not read gzip.
func compressionOf(o config.Output) *Compression {
	if o.Transport() != config.TransportTLS || o.Config.GzipThreshold > 1 {
		return nil
	}
	return &Compression{Threshold: o.Config.GzipThreshold, Level: o.Config.CompressionLevel, MemberBytes: o.Config.CompressionBufferInBytes}
}

// compression decides for the lanes of one output whether a write is compressed. A nil one never
// compresses. It is safe for concurrent use.
//
// The known collector takes a tenth of its queue's length for the load. Here the queue is the stream, and
// what a lane asks for at a time, 1,000 alerts, stands for a full one.
type compression struct {
	threshold float64
	gzip      *devo.Gzip

	mu     sync.Mutex
	waited [samples]uint16 // a ring: what waited behind each of the last alerts
	n      int             // samples ever taken
	sum    int             // of waited
}

// newCompression gives nil for nil. Errors are settings out of their bounds.
func newCompression(c *Compression) (*compression, error) {
	if c == nil {
		return nil, nil
	}
	gzip, err := devo.NewGzip(c.Level, c.MemberBytes)
	if err != nil {
		return nil, fmt.Errorf("compression: %w", err)
	}
	return &compression{threshold: c.Threshold, gzip: gzip}, nil
}

// sample notes how many alerts waited in the stream behind one that was taken from it.
func (c *compression) sample(waiting uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &c.waited[c.n%samples]
	c.sum -= int(*next)
	*next = uint16(min(waiting, pullSize))
	c.sum += int(*next)
	c.n++
}

// wanted reports whether what is written now is to be compressed.
func (c *compression) wanted() bool {
	if c == nil {
		return false
	}
	if c.threshold < 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := min(c.n, samples)
	return taken > 0 && float64(c.sum) >= c.threshold*float64(taken)*pullSize
}

// pack returns what goes over the link for frames: the frames themselves, or gzip members of them in the
// lane's second buffer, which is good until the next call. A write never holds half a member, so the
// offset behind it covers the same deliveries either way.
func (l *lane) pack(frames []byte) []byte {
	c := l.output.compression
	if !c.wanted() {
		return frames
	}
	packed := c.gzip.AppendMembers(l.packed[:0], frames)
	l.packed = packed[:0]
	if cap(packed) > maxKept {
		l.packed = nil
	}
	if log := l.output.logger; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug(fmt.Sprintf("Buffer flushed - Number of items/bytes sent: %d/%d", bytes.Count(frames, []byte("\n")), len(packed)))
	}
	return packed
}
