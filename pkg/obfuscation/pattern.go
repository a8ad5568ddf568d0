package obfuscation

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// span is a part of the text at hand that a pattern matched: offsets in what the text stands for, and what is
// put in its place, as it stands between quotes.
type span struct {
	start, end, rule int
	mask             []byte
}

// matches reports whether a pattern matches a number, true or false as it is written. A number with an exponent
// can be written in so many ways that none of them proves anything: it is taken for a match.
func (r *rule) matches(k kind, raw []byte) bool {
	if k == float && bytes.ContainsAny(raw, "eE") {
		return true
	}
	for _, p := range r.patterns {
		if p.plain.Match(raw) {
			return true
		}
	}
	return false
}

// patterns masks within the text src[start:pos], quotes included, what the states' patterns match. All of them
// see the text as it was, so that none hides anything from another; matches that overlap or touch become one.
func (s *scanner) patterns(states []state, start int, plain bool) error {
	inner := s.src[start+1 : s.pos-1]
	content, offsets := inner, []int(nil)
	if !plain {
		content, offsets = unescape(inner)
	}
	s.spans = s.spans[:0]
	var words []byte // content with marks
	var places []int
	for _, st := range states {
		r := &s.rules[st.rule]
		if misfit := st.at < len(r.path); misfit && !r.leads(st.at) {
			continue
		}
		found := false
		for _, p := range r.patterns {
			withMarks := p.marked != nil && !isASCII(content)
			if !withMarks || p.both {
				for _, m := range p.plain.FindAllSubmatchIndex(content, -1) {
					from, to := group(m)
					found = s.found(st.rule, from, to) || found
				}
			}
			if !withMarks {
				continue
			}
			if words == nil {
				words, places = mark(content)
			}
			for _, m := range p.marked.FindAllSubmatchIndex(words, -1) {
				from, to := group(m)
				found = s.found(st.rule, places[from], places[to]) || found
			}
		}
		if found {
			s.tally(st.rule, st.misfit || st.at < len(r.path) || !r.fits[text])
		}
	}
	// Where two begin at the same place, the later rule's mask is the one.
	slices.SortFunc(s.spans, func(a, b span) int { return cmp.Or(a.start-b.start, b.rule-a.rule) })
	for i := 0; i < len(s.spans); {
		one := s.spans[i]
		for i++; i < len(s.spans) && s.spans[i].start <= one.end; i++ {
			one.end = max(one.end, s.spans[i].end)
		}
		from, to := one.start, one.end
		if offsets != nil {
			from, to = offsets[from], offsets[to]
		}
		if err := s.replace(start+1+from, start+1+to, one.mask); err != nil {
			return err
		}
	}
	return nil
}

// group is what of a match is masked.
func group(match []int) (from, to int) {
	if len(match) > 2 && match[2] >= 0 {
		return match[2], match[3]
	}
	return match[0], match[1]
}

// found notes that a rule masks the text from from to to, if there is any.
func (s *scanner) found(rule, from, to int) bool {
	if from >= to {
		return false
	}
	quoted := s.rules[rule].masks[text]
	s.spans = append(s.spans, span{from, to, rule, quoted[1 : len(quoted)-1]})
	return true
}

// unescape returns what raw, a valid text without its quotes, stands for, and for each byte of that, and its end,
// where it comes from in raw. Patterns begin and end between characters, and so do the offsets found.
func unescape(raw []byte) (content []byte, offsets []int) {
	content = make([]byte, 0, len(raw))
	offsets = make([]int, 0, len(raw)+1)
	for i := 0; i < len(raw); {
		r, n := rune(0), 0
		if raw[i] == '\\' {
			r, n = unescapeOne(raw[i:])
		} else {
			r, n = utf8.DecodeRune(raw[i:])
		}
		before := len(content)
		content = utf8.AppendRune(content, r)
		for range len(content) - before {
			offsets = append(offsets, i)
		}
		i += n
	}
	return content, append(offsets, len(raw))
}

// unescapeOne returns the character that the valid escape at b's beginning stands for and the escape's length.
// A surrogate without its other half is U+FFFD, as in encoding/json.
func unescapeOne(b []byte) (rune, int) {
	switch b[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hexRune(b[2:6])
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
			if pair := utf16.DecodeRune(r, hexRune(b[8:12])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return rune(b[1]), 2
}

func hexRune(b []byte) rune {
	n, _ := strconv.ParseUint(string(b), 16, 16)
	return rune(n)
}
