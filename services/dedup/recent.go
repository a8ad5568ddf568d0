package dedup

import (
	"hash/maphash"
	"sync"
)

const (
	// recentKeys is how many claims of its own a process remembers, 4 MB of them; the oldest half goes at once.
	recentKeys = 1 << 17
	// cautiousBatches is for how many batches every claim is looked up after one was found that this process
	// did not know of: other processes are claiming the same alerts.
	cautiousBatches = 32
)

// recent is what this process has claimed lately. It is a hint that saves look-ups and decides nothing: which
// claim is free is decided by the bus when the claim is stored. Safe for concurrent use.
type recent struct {
	seed maphash.Seed

	mu       sync.Mutex
	newer    map[uint64]struct{}
	older    map[uint64]struct{}
	cautious int
}

func newRecent() *recent {
	return &recent{seed: maphash.MakeSeed(), newer: map[uint64]struct{}{}}
}

// note remembers claims that are stored.
func (r *recent) note(claimed []*sighting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range claimed {
		if len(r.newer) >= recentKeys/2 {
			r.older, r.newer = r.newer, make(map[uint64]struct{}, recentKeys/2)
		}
		r.newer[maphash.String(r.seed, s.key)] = struct{}{}
	}
}

// surprised says that a claim was taken of which this process did not know.
func (r *recent) surprised() {
	r.mu.Lock()
	r.cautious = cautiousBatches
	r.mu.Unlock()
}

// suspects returns those sightings of a batch whose claims may be stored already: all of them where that
// cannot be told.
func (r *recent) suspects(batch []*sighting) []*sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cautious > 0 {
		r.cautious--
		return batch
	}
	var out []*sighting
	for _, s := range batch {
		h := maphash.String(r.seed, s.key)
		_, known := r.newer[h]
		if !known {
			_, known = r.older[h]
		}
		if known || s.again || len(s.env.OtherHashes) > 0 {
			out = append(out, s)
		}
	}
	return out
}
