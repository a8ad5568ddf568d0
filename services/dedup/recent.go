package dedup

import (
	"hash/maphash"
	"sync"

	"defenderiot/pkg/seen"
)

// cautiousBatches is for how many batches every claim is looked up after one was found that this process did not
// know of: other processes are claiming the same alerts.
const cautiousBatches = 32

// recent is what this process has claimed lately. It is a hint that saves look-ups and decides nothing: which
// claim is free is decided by the bus when the claim is stored. Safe for concurrent use.
type recent struct {
	seed    maphash.Seed
	claimed seen.Set[uint64] // hashes of the claims' subjects

	mu       sync.Mutex
	cautious int
}

func newRecent() *recent { return &recent{seed: maphash.MakeSeed()} }

// note remembers claims that are stored.
func (r *recent) note(claimed []*sighting) {
	for _, s := range claimed {
		r.claimed.Add(maphash.String(r.seed, s.key))
	}
}

// surprised says that a claim was taken of which this process did not know.
func (r *recent) surprised() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cautious = cautiousBatches
}

// wary reports whether one more batch is to be looked up whole.
func (r *recent) wary() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cautious == 0 {
		return false
	}
	r.cautious--
	return true
}

// suspects returns those sightings of a batch whose claims may be stored already: all of them where that
// cannot be told.
func (r *recent) suspects(batch []*sighting) []*sighting {
	if r.wary() {
		return batch
	}
	var out []*sighting
	for _, s := range batch {
		if s.again || len(s.env.OtherHashes) > 0 || r.claimed.Has(maphash.String(r.seed, s.key)) {
			out = append(out, s)
		}
	}
	return out
}
