package fetcher

import (
	"sync"
	"time"
)

// spread is how several inputs come to several processes: for a free lease a process waits the longer the more it has, so
// that another one that stands by gets it. Leases that are held do not move. The fetchers of one process share it;
// it is safe for concurrent use, and nil lets everything be taken at once.
type spread struct {
	each time.Duration // the wait for each lease that the process has

	mu   sync.Mutex
	held int
}

// reserve reports whether a lease that has been free for so long may be taken, and counts it as held if so.
func (s *spread) reserve(free time.Duration) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if free < time.Duration(s.held)*s.each {
		return false
	}
	s.held++
	return true
}

// add counts leases that the process has, or has no more.
func (s *spread) add(n int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
}
