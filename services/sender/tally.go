package sender

import (
	"sync"
	"time"
)

// tally counts what one sender service of an output did since the start of this process. It is safe for
// concurrent use.
type tally struct {
	mu  sync.Mutex
	sum sums
}

type sums struct {
	sent    int64         // confirmed; of the internal service: acknowledged by the peer's TCP
	bytes   int64         // of these, frames with their line breaks
	written int64         // written, also what was written again
	writing time.Duration // spent in writes
}

func (s sums) less(o sums) sums {
	return sums{s.sent - o.sent, s.bytes - o.bytes, s.written - o.written, s.writing - o.writing}
}

func (t *tally) wrote(n int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.written += int64(n)
	t.sum.writing += took
}

func (t *tally) confirmed(n int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.sent += int64(n)
	t.sum.bytes += bytes
}

func (t *tally) read() sums {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum
}
