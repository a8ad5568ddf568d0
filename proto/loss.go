package proto

import (
	"encoding/json"
	"fmt"
	"time"
)

// LossVersion is the version of [Loss] and [Watch].
const LossVersion = 1

// Watch is what the keeper last saw of the streams, JSON in the checkpoints bucket: what it compares the next sight
// with. An older one is as good: what it speaks of was there.
type Watch struct {
	Version int                `json:"version"`
	Streams map[string]Watched `json:"streams"`
	// Audited: every claim below this sequence of the hashes bucket was seen with its alert in UNIQUE, or in RAW.
	Audited uint64 `json:"audited"`
	// UniqueSince: every alert that UNIQUE no longer has, and that was confirmed at every output, was stored before. It is
	// up to an hour later than that.
	UniqueSince time.Time `json:"unique_since"`
}

// Watched is one stream.
type Watched struct {
	Last     uint64    `json:"last_sequence"`
	LastTime time.Time `json:"last_time"`
	// Gap is how many sequences have no message, and are known to have none.
	Gap uint64 `json:"gap"`
	// Settled is up to where its messages may be purged.
	Settled uint64 `json:"settled"`
	// Holes are sequences that cannot be read, and are known.
	Holes []Range `json:"holes,omitempty"`
}

// States of a loss:
//
//	releasing ── claims of what is lost are released, positions go back ──> reading
//	reading   ── the fetchers have read everything again ─────────────────> settled
const (
	LossReleasing = "releasing"
	LossReading   = "reading"
	LossSettled   = "settled"
)

// Loss is what the bus has lost of what it had acknowledged, and what became of it; JSON in the checkpoints bucket,
// changed by compare-and-set only. There is one; what is lost while it is not settled is added.
type Loss struct {
	Version int       `json:"version"`
	State   string    `json:"state"`
	Noticed time.Time `json:"noticed"`
	// Restored: the bus was restored from an older copy. What it lost thereby nobody can count.
	Restored bool `json:"restored,omitempty"`
	// Messages counts what each stream has lost, as far as it can be counted.
	Messages map[string]uint64 `json:"messages"`
	// Released counts claims that were given up; those of alerts that were not fetched again lie in the hashes bucket
	// at From or later.
	Released uint64 `json:"released"`
	From     uint64 `json:"from"`
	// Next is where releasing goes on in the hashes bucket; Waiting, if not 0, is the first claim before it whose alert
	// was on its way, and is looked at again.
	Next    uint64 `json:"next,omitempty"`
	Waiting uint64 `json:"waiting,omitempty"`
	// Positions are where the fetchers stood, by the token of the source.
	Positions map[string]time.Time `json:"positions"`
	// Gone counts the alerts that Azure no longer has; Hashes are of some of them.
	Gone    uint64    `json:"gone"`
	Hashes  []string  `json:"hashes,omitempty"`
	Settled time.Time `json:"settled,omitzero"`
}

// MaxLossHashes bounds Loss.Hashes.
const MaxLossHashes = 1000

// Encode returns the record as JSON.
func (l *Loss) Encode() ([]byte, error) {
	l.Version = LossVersion
	return json.Marshal(l)
}

// DecodeLoss reads a record; errors wrap [ErrMalformed] or [ErrNewerMajor].
func DecodeLoss(data []byte) (*Loss, error) {
	l := &Loss{}
	return l, decodeKept(data, l, &l.Version, "loss")
}

// Encode returns the record as JSON.
func (w *Watch) Encode() ([]byte, error) {
	w.Version = LossVersion
	return json.Marshal(w)
}

// DecodeWatch reads a record; errors wrap [ErrMalformed] or [ErrNewerMajor].
func DecodeWatch(data []byte) (*Watch, error) {
	w := &Watch{}
	return w, decodeKept(data, w, &w.Version, "watch")
}

func decodeKept(data []byte, into any, version *int, what string) error {
	err := json.Unmarshal(data, into)
	switch {
	case *version > LossVersion:
		return fmt.Errorf("record of the keeper's %s: %w: version %d", what, ErrNewerMajor, *version)
	case err != nil:
		return fmt.Errorf("record of the keeper's %s: %w: %w", what, ErrMalformed, err)
	case *version < 1:
		return fmt.Errorf("record of the keeper's %s: %w: no version", what, ErrMalformed)
	}
	return nil
}
