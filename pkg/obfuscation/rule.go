package obfuscation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Rule says what is masked. See the package for how Path is followed.
type Rule struct {
	// Path has at least one segment: a key, an index as text, or "*".
	Path []string
	// Value stands in the place of what is masked: a string, an integer, a finite float64 or a bool; nil for
	// the defaults. It is used only for values of its own type, where a JSON number with a fraction or an
	// exponent is a float64 and any other an integer. For the others the default mask of their type is used.
	Value any
	// Patterns limit the rule to what they match within a text: the first group where there is one and it took
	// part in the match, else the match. A number, true or false that one of them matches as it is written is
	// masked as a whole, and so is a number with an exponent. \w, \d, \s, \b and \B know more than ASCII.
	Patterns []*regexp.Regexp
}

// wildcard is the segment for every member and element.
const wildcard = "*"

// kind is a type of JSON scalars that has a mask of its own.
type kind int

const (
	text kind = iota
	integer
	float
	boolean
	kinds
	null // has no mask
)

// defaults are those of the collector that people know.
var defaults = [kinds]string{text: `"****SANITIZED****"`, integer: "-1", float: "-1.0", boolean: "false"}

// rule is a Rule made ready.
type rule struct {
	name     string
	path     []segment
	patterns []pattern
	masks    [kinds][]byte // as JSON
	fits     [kinds]bool   // the mask is the one that was asked for
}

type segment struct {
	key   string
	index int  // of a list; -1 if key is none
	any   bool // the wildcard
}

func compile(r Rule) (rule, error) {
	c := rule{name: strings.Join(r.Path, ".")}
	if len(r.Path) == 0 {
		return c, errors.New("name: an empty path; allowed: at least one segment")
	}
	for _, key := range r.Path {
		c.path = append(c.path, segment{key: key, index: indexOf(key), any: key == wildcard})
	}
	for i, p := range r.Patterns {
		wide, err := widen(p)
		if err != nil {
			return c, fmt.Errorf("string_patterns[%d]: %w", i, err)
		}
		ready, err := newPattern(wide)
		if err != nil {
			return c, fmt.Errorf("string_patterns[%d]: with \\b for words beyond ASCII: %w", i, err)
		}
		c.patterns = append(c.patterns, ready)
	}
	for k := range kinds {
		c.masks[k], c.fits[k] = []byte(defaults[k]), r.Value == nil
	}
	if r.Value == nil {
		return c, nil
	}
	k, mask, err := encode(r.Value)
	if err != nil {
		return c, err
	}
	c.masks[k], c.fits[k] = mask, true
	return c, nil
}

// indexOf reads a segment as the index of a list; -1 if it is none.
func indexOf(key string) int {
	n, err := strconv.ParseUint(key, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// encode is a rule's value as JSON.
func encode(v any) (kind, []byte, error) {
	switch v := v.(type) {
	case string:
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		err := enc.Encode(v)
		return text, bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
	case bool:
		return boolean, strconv.AppendBool(nil, v), nil
	case int, int64, uint64:
		return integer, fmt.Append(nil, v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, nil, fmt.Errorf("value: %v is no number of JSON; allowed: a finite number", v)
		}
		b, err := json.Marshal(v)
		if !bytes.ContainsAny(b, ".eE") {
			b = append(b, ".0"...)
		}
		return float, b, err
	}
	return 0, nil, fmt.Errorf("value: a %T; allowed: a text, a number, true or false", v)
}

// leads reports whether the rule's first n segments lead to a place by a key or an index, so that the place is
// the one that was meant. The root is.
func (r *rule) leads(n int) bool { return n == 0 || !r.path[n-1].any }

// reaches reports whether the rule masks a scalar at path.
func (r *rule) reaches(path []string) bool {
	n := min(len(r.path), len(path))
	for i, key := range path[:n] {
		if !r.path[i].any && r.path[i].key != key {
			return false
		}
	}
	return len(r.path) <= len(path) || r.leads(n)
}
