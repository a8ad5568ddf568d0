package obfuscation

import (
	"regexp"
	"regexp/syntax"
	"unicode"
)

// widen lets \w, \d and \s, and classes that hold as much, match beyond ASCII too. People's patterns come from a
// collector whose regular expressions do so: with RE2's meaning `user=(\w+)` would leave the end of "José".
// Everything that p matches is matched as before or becomes longer; groups keep their numbers.
func widen(p *regexp.Regexp) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(p.String(), syntax.Perl)
	if err != nil {
		return nil, err
	}
	if !widenClasses(tree) {
		return p, nil
	}
	return regexp.Compile(tree.String())
}

func widenClasses(re *syntax.Regexp) (changed bool) {
	for _, sub := range re.Sub {
		changed = widenClasses(sub) || changed
	}
	if re.Op != syntax.OpCharClass || len(re.Rune) == 0 || re.Rune[len(re.Rune)-1] == unicode.MaxRune {
		return changed // a negated class has what is beyond ASCII
	}
	ascii := re.Rune
	switch {
	case holds(ascii, 'a', 'z') && holds(ascii, 'A', 'Z') && holds(ascii, '0', '9') && holds(ascii, '_', '_'):
		re.Rune = beyond(re.Rune, unicode.L, unicode.M, unicode.N)
	case holds(ascii, '0', '9'):
		re.Rune = beyond(re.Rune, unicode.Nd)
	}
	if holds(ascii, '\t', '\n') && holds(ascii, '\f', '\r') && holds(ascii, ' ', ' ') {
		re.Rune = beyond(append(re.Rune, '\v', '\v'), unicode.White_Space)
	}
	return changed || len(re.Rune) > len(ascii)
}

// holds reports whether one of the ranges holds all from lo to hi.
func holds(ranges []rune, lo, hi rune) bool {
	for i := 0; i+1 < len(ranges); i += 2 {
		if ranges[i] <= lo && hi <= ranges[i+1] {
			return true
		}
	}
	return false
}

// beyond appends to ranges what the tables hold beyond ASCII.
func beyond(ranges []rune, tables ...*unicode.RangeTable) []rune {
	add := func(lo, hi, stride rune) {
		if stride == 1 {
			ranges = append(ranges, lo, hi)
			return
		}
		for r := lo; r <= hi; r += stride {
			ranges = append(ranges, r, r)
		}
	}
	for _, t := range tables {
		for _, r := range t.R16 {
			if r.Lo > unicode.MaxASCII {
				add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
			}
		}
		for _, r := range t.R32 {
			add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	return ranges
}
