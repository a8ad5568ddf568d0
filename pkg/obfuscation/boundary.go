package obfuscation

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// \b and \B know only words of ASCII, so `\bJosé\b` would find nothing, and the name would leave. In a text that goes
// beyond ASCII such a pattern is therefore looked for with marks at every position, which say whether a word begins
// or ends there. In the pattern \b takes the one mark, \B the other, and everything that takes a character takes
// the marks before it:
//
//	\bé\w+   on   aé é7   becomes   B(?:[BN]*é)(?:[BN]*\w)+   on   BaNéB BéN7B, each mark [marks] times
//
// What asks more often at one place, and an anchor that does not stand outermost, as in `$\b`, finds too little so.
// Patterns with anchors are therefore looked for as they are, too, which masks rather too much.
//
// The marks are two of Unicode's noncharacters, which no text of a person has; in a text they count as U+FFFD.
const (
	boundary   = '\uFDD0' // a word begins or ends here
	noBoundary = '\uFDD1'
	marks      = 3
)

// pattern is one of Rule.Patterns.
type pattern struct {
	plain *regexp.Regexp
	// marked is what is looked for in a text beyond ASCII, with marks; nil: plain. both: besides plain.
	marked *regexp.Regexp
	both   bool
}

// newPattern makes p ready. The error says that with marks it becomes too large.
func newPattern(p *regexp.Regexp) (pattern, error) {
	tree, err := syntax.Parse(p.String(), syntax.Perl)
	if err != nil || !asksForWords(tree) {
		return pattern{plain: p}, err
	}
	both := hasAnchor(tree)
	with, err := regexp.Compile(marked(tree).String())
	return pattern{plain: p, marked: with, both: both}, err
}

func asksForWords(re *syntax.Regexp) bool {
	return re.Op == syntax.OpWordBoundary || re.Op == syntax.OpNoWordBoundary || slices.ContainsFunc(re.Sub, asksForWords)
}

func hasAnchor(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpBeginText, syntax.OpEndLine, syntax.OpEndText:
		return true
	}
	return slices.ContainsFunc(re.Sub, hasAnchor)
}

// marked rewrites a tree; groups keep their numbers.
func marked(re *syntax.Regexp) *syntax.Regexp {
	literal := func(r rune, flags syntax.Flags) *syntax.Regexp {
		return &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{r}, Flags: flags}
	}
	class := func(ranges ...rune) *syntax.Regexp { return &syntax.Regexp{Op: syntax.OpCharClass, Rune: ranges} }
	behindMark := func(one *syntax.Regexp) *syntax.Regexp {
		mark := &syntax.Regexp{Op: syntax.OpStar, Sub: []*syntax.Regexp{class(boundary, noBoundary)}}
		return &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{mark, one}}
	}
	switch re.Op {
	case syntax.OpWordBoundary:
		return literal(boundary, 0)
	case syntax.OpNoWordBoundary:
		return literal(noBoundary, 0)
	case syntax.OpLiteral:
		all := &syntax.Regexp{Op: syntax.OpConcat}
		for _, r := range re.Rune {
			all.Sub = append(all.Sub, behindMark(literal(r, re.Flags)))
		}
		return all
	case syntax.OpCharClass:
		return behindMark(class(withoutMarks(re.Rune)...))
	case syntax.OpAnyChar:
		return behindMark(class(withoutMarks([]rune{0, unicode.MaxRune})...))
	case syntax.OpAnyCharNotNL:
		return behindMark(class(withoutMarks([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune})...))
	case syntax.OpEndText, syntax.OpEndLine:
		return behindMark(re)
	}
	changed := *re
	changed.Sub = nil
	for _, sub := range re.Sub {
		changed.Sub = append(changed.Sub, marked(sub))
	}
	return &changed
}

// withoutMarks takes the marks out of ranges.
func withoutMarks(ranges []rune) (out []rune) {
	for i := 0; i+1 < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		if hi < boundary || lo > noBoundary {
			out = append(out, lo, hi)
			continue
		}
		if lo < boundary {
			out = append(out, lo, boundary-1)
		}
		if hi > noBoundary {
			out = append(out, noBoundary+1, hi)
		}
	}
	return out
}

// mark returns content with marks at every position, and for each byte of that, and its end, the place in content
// that it stands for.
func mark(content []byte) (text []byte, places []int) {
	before, at := false, 0
	put := func(r rune) {
		n := len(text)
		text = utf8.AppendRune(text, r)
		for range len(text) - n {
			places = append(places, at)
		}
	}
	for {
		r, size := utf8.DecodeRune(content[at:])
		word := size > 0 && isWord(r)
		m := rune(noBoundary)
		if word != before {
			m = boundary
		}
		for range marks {
			put(m)
		}
		if size == 0 {
			return text, append(places, at)
		}
		if r == boundary || r == noBoundary {
			r = utf8.RuneError
		}
		put(r)
		before, at = word, at+size
	}
}

// isWord is what [widen] makes of \w.
func isWord(r rune) bool { return r == '_' || unicode.In(r, unicode.L, unicode.M, unicode.N) }

func isASCII(text []byte) bool {
	return !slices.ContainsFunc(text, func(b byte) bool { return b >= utf8.RuneSelf })
}
