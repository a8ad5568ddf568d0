package obfuscation

import (
	"encoding/json"
	"errors"
	"fmt"
)

// state is how far one rule has been followed: at is the number of its segments that led here. A rule that is
// at its end applies to everything beneath. There is at most one state of a rule at a time, and they are in the
// order of the rules.
type state struct {
	rule, at int
	misfit   bool // at its end because the row has another shape
}

// tally is what a rule did to one row.
type tally struct{ masked, misfits uint64 }

// scanner masks one row in one pass, which also is the check of its syntax: everything that is let through
// has been understood. It goes down by recursion only along the paths of rules, so at most as deep as the
// longest of them; the rest is walked with a stack of open brackets.
type scanner struct {
	rules []rule

	src     []byte
	pos     int
	out     []byte
	base    int // length of out before this row
	copied  int // src up to here is in out, masked
	tallies []tally
	states  []state // stack: each level's states lie on those of the level above
	open    []byte  // brackets that walk has not closed yet
	spans   []span  // of the text at hand
}

// release makes the scanner ready for another row; false if it has grown too large to keep.
func (s *scanner) release() bool {
	s.src, s.out = nil, nil
	clear(s.tallies)
	clear(s.spans)
	s.states, s.open, s.spans = s.states[:0], s.open[:0], s.spans[:0]
	return cap(s.open) <= maxKept && cap(s.spans) <= maxKept/32
}

func (s *scanner) mask(dst, row []byte) ([]byte, error) {
	s.src, s.pos, s.out, s.base, s.copied = row, 0, dst, len(dst), 0
	for i := range s.rules {
		s.states = append(s.states, state{rule: i})
	}
	if err := s.value(0, len(s.states), 0); err != nil {
		return nil, err
	}
	if s.space(); s.pos != len(row) {
		return nil, s.syntax()
	}
	s.out = append(s.out, row[s.copied:]...)
	if len(s.out)-s.base > maxSize {
		return nil, errSize
	}
	return s.out, nil
}

var (
	errSize  = fmt.Errorf("the masked row exceeds %d bytes", maxSize)
	errDepth = fmt.Errorf("JSON nested deeper than %d", maxDepth)
)

// syntax is the error for what stands at pos. It never quotes.
func (s *scanner) syntax() error {
	return fmt.Errorf("no valid JSON at byte %d of %d", min(s.pos, len(s.src)), len(s.src))
}

// value reads the value at pos under the states[lo:hi]; depth is how many brackets are open.
func (s *scanner) value(lo, hi, depth int) error {
	s.space()
	switch c := s.peek(); {
	case c != '{' && c != '[':
		return s.scalar(lo, hi)
	case depth >= maxDepth:
		return errDepth
	case !s.ongoing(lo, hi):
		return s.walk(lo, hi, depth)
	case c == '{':
		return s.object(lo, hi, depth)
	default:
		s.misplace(lo, hi)
		return s.list(lo, hi, depth)
	}
}

// ongoing reports whether a rule among the states has segments left.
func (s *scanner) ongoing(lo, hi int) bool {
	for _, st := range s.states[lo:hi] {
		if st.at < len(s.rules[st.rule].path) {
			return true
		}
	}
	return false
}

// misplace ends, at a list, the rules that go on with a key.
func (s *scanner) misplace(lo, hi int) {
	for i := lo; i < hi; i++ {
		st := &s.states[i]
		r := &s.rules[st.rule]
		if st.at < len(r.path) && !r.path[st.at].any && r.path[st.at].index < 0 && r.leads(st.at) {
			st.at, st.misfit = len(r.path), true
		}
	}
}

func (s *scanner) object(lo, hi, depth int) error {
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		key, err := s.key()
		if err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			st := s.states[i]
			if path := s.rules[st.rule].path; st.at < len(path) {
				if seg := &path[st.at]; !seg.any && string(key) != seg.key {
					continue
				}
				st.at++
			}
			s.states = append(s.states, st)
		}
		err = s.value(hi, len(s.states), depth+1)
		s.states = s.states[:hi]
		if err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.syntax()
		}
	}
}

func (s *scanner) list(lo, hi, depth int) error {
	s.pos++
	if s.space(); s.peek() == ']' {
		s.pos++
		return nil
	}
	for n := 0; ; n++ {
		for i := lo; i < hi; i++ {
			st := s.states[i]
			if path := s.rules[st.rule].path; st.at < len(path) {
				if seg := &path[st.at]; !seg.any && seg.index != n {
					continue
				}
				st.at++
			}
			s.states = append(s.states, st)
		}
		err := s.value(hi, len(s.states), depth+1)
		s.states = s.states[:hi]
		if err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.syntax()
		}
	}
}

// walk reads a value to its end; its scalars are all under the states[lo:hi], which are at their ends.
func (s *scanner) walk(lo, hi, depth int) error {
	for {
		s.space()
		c := s.peek()
		switch c {
		case '{', '[':
			if depth+len(s.open) >= maxDepth {
				return errDepth
			}
			s.pos++
			s.space()
			if s.peek() != c+2 { // in ASCII a bracket closes two after it opens
				s.open = append(s.open, c)
				if c == '{' {
					if _, err := s.key(); err != nil {
						return err
					}
				}
				continue
			}
			s.pos++
		default:
			if err := s.scalar(lo, hi); err != nil {
				return err
			}
		}
		for len(s.open) > 0 {
			bracket := s.open[len(s.open)-1]
			s.space()
			next := s.peek()
			if next != ',' && next != bracket+2 {
				return s.syntax()
			}
			s.pos++
			if next == ',' {
				break
			}
			s.open = s.open[:len(s.open)-1]
		}
		if len(s.open) == 0 {
			return nil
		}
		if s.open[len(s.open)-1] == '{' {
			if _, err := s.key(); err != nil {
				return err
			}
		}
	}
}

// key reads a key and the colon behind it, and returns its text as encoding/json understands it: that is what
// a reader behind us will find, however it is written.
func (s *scanner) key() ([]byte, error) {
	s.space()
	start := s.pos
	plain, err := s.quoted()
	if err != nil {
		return nil, err
	}
	raw := s.src[start:s.pos]
	if s.space(); s.peek() != ':' {
		return nil, s.syntax()
	}
	s.pos++
	if plain {
		return raw[1 : len(raw)-1], nil
	}
	var key string
	if json.Unmarshal(raw, &key) != nil {
		return nil, errors.New("a key that is no text") // not reached: quoted has checked it
	}
	return []byte(key), nil
}

// scalar reads a text, number, true, false or null and masks it where the states[lo:hi] say so.
func (s *scanner) scalar(lo, hi int) error {
	start := s.pos
	k, plain, err := s.token()
	if err != nil || lo == hi || k == null {
		return err
	}
	return s.apply(s.states[lo:hi], k, start, plain)
}

// apply masks the scalar src[start:pos] under states.
func (s *scanner) apply(states []state, k kind, start int, plain bool) error {
	var last *rule // the last rule that masks the whole value
	partly := false
	for _, st := range states {
		r := &s.rules[st.rule]
		misfit := st.misfit
		if st.at < len(r.path) {
			if !r.leads(st.at) {
				continue
			}
			misfit = true
		}
		switch {
		case len(r.patterns) == 0, k != text && r.matches(k, s.src[start:s.pos]):
			last = r
			s.tally(st.rule, misfit || !r.fits[k])
		case k == text:
			partly = true
		}
	}
	if last != nil {
		return s.replace(start, s.pos, last.masks[k])
	}
	if partly {
		return s.patterns(states, start, plain)
	}
	return nil
}

func (s *scanner) tally(rule int, misfit bool) {
	t := &s.tallies[rule]
	t.masked++
	if misfit {
		t.misfits++
	}
}

// replace puts mask in the place of src[start:end].
func (s *scanner) replace(start, end int, mask []byte) error {
	s.out = append(s.out, s.src[s.copied:start]...)
	s.out = append(s.out, mask...)
	s.copied = end
	if len(s.out)-s.base > maxSize {
		return errSize
	}
	return nil
}
