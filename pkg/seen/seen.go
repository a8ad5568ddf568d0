// Package seen remembers what came by lately, in bounded memory.
package seen

import "sync"

// Keep is how many keys a [Set] holds at least, once it has been given so many; it holds at most twice as many.
const Keep = 1 << 16

// Set is a set that forgets its oldest keys. It is a hint: a key that it has was added, one that it has not may
// have been added long ago. The zero value is ready. It is safe for concurrent use.
type Set[K comparable] struct {
	mu       sync.Mutex
	new, old map[K]struct{}
}

// Has reports whether k is remembered.
func (s *Set[K]) Has(k K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, young := s.new[k]
	_, old := s.old[k]
	return young || old
}

// Add remembers k. When the younger half is full, the older one is forgotten at once.
func (s *Set[K]) Add(k K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.new == nil || len(s.new) >= Keep {
		s.old, s.new = s.new, make(map[K]struct{})
	}
	s.new[k] = struct{}{}
}

// Len is how many keys are remembered; one that was added again may count twice.
func (s *Set[K]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.new) + len(s.old)
}
