package simulator

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store holds the alerts that [Graph] answers with. It is safe for concurrent
// use. A page is read from the rows as they are at that moment, so rows added
// or deleted between two pages shift the later ones, as in the service.
type Store struct {
	mu       sync.RWMutex
	clock    func() time.Time
	byID     map[string]*entry
	byType   map[string]*index
	subs     map[string]int // rows by subscription
	late     []lateRow      // in order of time
	seq      uint64
	revision uint64
}

type lateRow struct {
	at  time.Time
	row Row
}

func newStore(clock func() time.Time) *Store {
	return &Store{
		clock:  clock,
		byID:   map[string]*entry{},
		byType: map[string]*index{},
		subs:   map[string]int{},
	}
}

// Add puts rows in. The bytes are kept, not copied: the caller must not change
// them. A row whose id is there already is kept beside the first, as the same
// alert twice in one answer does happen.
func (s *Store) Add(rows ...Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(rows)
}

// AddLate puts a row in that queries see from visibleAt on, by the graph's
// clock: Resource Graph shows some alerts long after they started.
func (s *Store) AddLate(row Row, visibleAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _ := slices.BinarySearchFunc(s.late, visibleAt, func(l lateRow, t time.Time) int { return l.at.Compare(t) })
	s.late = slices.Insert(s.late, at, lateRow{visibleAt, row})
}

// Change replaces the content of every row with this id (in any case) by what
// change returns for it. It returns whether there was one. change gets a copy
// and must not call the store.
func (s *Store) Change(id string, change func(Row) Row) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reveal()
	var after []Row
	for e := s.byID[strings.ToLower(id)]; e != nil; e = e.twin {
		after = append(after, change(Row{JSON: bytes.Clone(e.json)}))
	}
	if after == nil {
		return false
	}
	s.delete(strings.ToLower(id))
	s.add(after)
	return true
}

// Delete removes every row with this id (in any case) and returns whether
// there was one.
func (s *Store) Delete(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reveal()
	return s.delete(strings.ToLower(id))
}

// Len returns the number of rows that queries can see now.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reveal()
	n := 0
	for _, x := range s.byType {
		n += len(x.rows)
	}
	return n
}

// Rows returns the rows that queries can see now, by type, start and id. The
// bytes are the store's own: they must not be changed.
func (s *Store) Rows() []Row {
	var rows []Row
	for _, e := range s.entries() {
		rows = append(rows, Row{JSON: e.json})
	}
	return rows
}

func (s *Store) entries() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reveal()
	kinds := make([]string, 0, len(s.byType))
	for kind := range s.byType {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	var all []*entry
	for _, kind := range kinds {
		all = append(all, s.byType[kind].rows...)
	}
	return all
}

func (s *Store) add(rows []Row) {
	if len(rows) == 0 {
		return
	}
	fresh := map[string][]*entry{}
	for _, r := range rows {
		s.seq++
		e := newEntry(r.JSON, s.seq)
		e.twin = s.byID[e.lowID]
		s.byID[e.lowID] = e
		s.subs[e.subscription]++
		fresh[e.kind] = append(fresh[e.kind], e)
	}
	for kind, list := range fresh {
		if s.byType[kind] == nil {
			s.byType[kind] = &index{}
		}
		s.byType[kind].add(list)
	}
	s.revision++
}

func (s *Store) delete(lowID string) bool {
	first := s.byID[lowID]
	for e := first; e != nil; e = e.twin {
		s.byType[e.kind].remove(e)
		if s.subs[e.subscription]--; s.subs[e.subscription] == 0 {
			delete(s.subs, e.subscription)
		}
	}
	delete(s.byID, lowID)
	s.revision++
	return first != nil
}

// reveal moves the late rows whose time has come.
func (s *Store) reveal() {
	if len(s.late) == 0 {
		return
	}
	now := s.clock()
	n := 0
	var due []Row
	for n < len(s.late) && !s.late[n].at.After(now) {
		due = append(due, s.late[n].row)
		n++
	}
	if n > 0 {
		s.late = slices.Delete(s.late, 0, n)
		s.add(due)
	}
}

// subscriptions returns the subscriptions that have rows.
func (s *Store) subscriptions() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]string, 0, len(s.subs))
	for sub := range s.subs {
		if sub != "" {
			list = append(list, sub)
		}
	}
	return list
}

// state reveals late rows and returns the revision that results.
func (s *Store) state() uint64 {
	s.mu.RLock()
	revision, waiting := s.revision, len(s.late) > 0
	s.mu.RUnlock()
	if !waiting {
		return revision
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reveal()
	return s.revision
}

// view calls read with the index of a type (possibly nil) and the number of
// rows by subscription, both under the read lock.
func (s *Store) view(kind string, read func(x *index, subs map[string]int)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	read(s.byType[kind], s.subs)
}
