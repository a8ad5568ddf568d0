package simulator

import (
	"bytes"
	"maps"
	"strings"
	"sync"

	"defenderiot/services/simulator/rawjson"
)

// maxTags bounds the number of tags that are counted apart.
const maxTags = 1000

// DevoStats says what arrived. Only frames that the program has read whole
// count: bytes in the kernel or in a cut tail have not arrived.
type DevoStats struct {
	Frames     int64 `json:"frames"`
	Bytes      int64 `json:"bytes"`      // of the frames, without line feeds and lengths
	Unique     int64 `json:"unique"`     // different ids
	Duplicates int64 `json:"duplicates"` // frames whose id had arrived before
	WithoutID  int64 `json:"without_id"` // frames without an id, e.g. the collector's own log
	Members    int64 `json:"members"`    // gzip members, read whole
	CutTails   int64 `json:"cut_tails"`  // connections that ended within a frame
	CutBytes   int64 `json:"cut_bytes"`  // bytes of such tails

	Connections int64 `json:"connections"` // accepted
	Open        int64 `json:"open"`        // now
	Refused     int64 `json:"refused"`     // failed at the TLS handshake
	HalfCloses  int64 `json:"half_closes"` // answered in full: all was read
	Broken      int64 `json:"broken"`      // ended in any other way

	Tags map[string]int64 `json:"tags"` // frames by tag
}

// arrivals counts frames by the alert's id.
type arrivals struct {
	mu      sync.Mutex
	stats   DevoStats
	index   map[string]int32 // id -> position in counts
	counts  []int32
	tags    map[string]*int64
	keep    bool
	kept    [][]byte
	scratch []byte
}

func newArrivals(keep bool) *arrivals {
	return &arrivals{index: map[string]int32{}, tags: map[string]*int64{}, keep: keep}
}

var tagEnd = []byte(": ")

// frame counts one frame, "<PRI>DATE HOST TAG: BODY". It allocates only for
// an id or a tag that is new.
func (a *arrivals) frame(frame []byte) {
	var tag, body []byte
	if end := bytes.Index(frame, tagEnd); end >= 0 {
		tag = frame[bytes.LastIndexByte(frame[:end], ' ')+1 : end]
		body = frame[end+len(tagEnd):]
	}
	id, ok := rawjson.Member(body, "id")
	ok = ok && len(id) > 2 && id[0] == '"'
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Frames++
	a.stats.Bytes += int64(len(frame))
	if n := a.tags[string(tag)]; n != nil {
		*n++
	} else if len(a.tags) < maxTags {
		n := int64(1)
		a.tags[string(tag)] = &n
	}
	if ok {
		a.alert(id)
	} else {
		a.stats.WithoutID++
	}
	if a.keep {
		a.kept = append(a.kept, bytes.Clone(frame))
	}
}

// alert counts an id, given as the JSON string it is in the body.
func (a *arrivals) alert(quoted []byte) {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		s, _ := rawjson.String(quoted)
		a.scratch = append(a.scratch[:0], s...)
	} else {
		a.scratch = append(a.scratch[:0], quoted[1:len(quoted)-1]...)
	}
	for i, c := range a.scratch {
		if c >= 'A' && c <= 'Z' {
			a.scratch[i] = c + 'a' - 'A'
		}
	}
	if at, seen := a.index[string(a.scratch)]; seen {
		a.counts[at]++
		a.stats.Duplicates++
		return
	}
	a.index[string(a.scratch)] = int32(len(a.counts))
	a.counts = append(a.counts, 1)
	a.stats.Unique++
}

func (a *arrivals) cut(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.CutTails++
	a.stats.CutBytes += int64(bytes)
}

// note changes a connection counter.
func (a *arrivals) note(change func(*DevoStats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.stats)
}

func (a *arrivals) snapshot() DevoStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Tags = make(map[string]int64, len(a.tags))
	for tag, n := range a.tags {
		s.Tags[tag] = *n
	}
	return s
}

// Stats returns what arrived so far.
func (d *Devo) Stats() DevoStats { return d.arrivals.snapshot() }

// Count returns how often an alert arrived; ids are compared in lower case.
func (d *Devo) Count(id string) int {
	a := d.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.index[strings.ToLower(id)]
	if !ok {
		return 0
	}
	return int(a.counts[at])
}

// Missing returns those of the ids that have not arrived.
func (d *Devo) Missing(ids []string) []string {
	var missing []string
	for _, id := range ids {
		if d.Count(id) == 0 {
			missing = append(missing, id)
		}
	}
	return missing
}

// Counts returns how often each alert arrived, by id in lower case.
func (d *Devo) Counts() map[string]int {
	a := d.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	counts := make(map[string]int, len(a.index))
	for id, at := range maps.All(a.index) {
		counts[id] = int(a.counts[at])
	}
	return counts
}

// Frames returns the frames in the order of arrival, if the endpoint was told
// to keep them.
func (d *Devo) Frames() [][]byte {
	a := d.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([][]byte(nil), a.kept...)
}
