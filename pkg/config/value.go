package config

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The short tags of YAML's core schema; a value read from JSON carries them too.
const (
	tagNull  = "!!null"
	tagBool  = "!!bool"
	tagInt   = "!!int"
	tagFloat = "!!float"
	tagText  = "!!str"
)

// position is a place in the file, counted from 1.
type position struct{ line, column int }

// value is one node of the file: a scalar, a list or a mapping.
//
// text is what counts, written is what stands in the file. They differ where ${NAME} or file:// was
// replaced; then only written may be printed.
type value struct {
	kind    yaml.Kind // yaml.ScalarNode, yaml.SequenceNode or yaml.MappingNode
	tag     string    // of a scalar
	plain   bool      // a scalar without quotes, whose tag follows from its text
	text    string
	written string
	secret  bool                   // of type secret.String: never printed
	filled  bool                   // a default, not in the file
	again   func() (string, error) // of a secret: reads it anew; nil if it is written here
	bad     bool                   // an error was reported here; further ones would only repeat it

	name  string // the key, within a mapping
	path  string // from the root, such as outputs.devo_1.config
	where position
	key   position // of the key; zero within a list and at the root

	children []*value // of a list, or of a mapping in the order of the file
}

// keyPosition is where the key stands, or else the value.
func (v *value) keyPosition() position {
	if v.key.line > 0 {
		return v.key
	}
	return v.where
}

// field is the child of a mapping, or nil.
func (v *value) field(name string) *value {
	if v.kind != yaml.MappingNode {
		return nil
	}
	for _, c := range v.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// given is the value below v that the file itself holds, or nil.
func (v *value) given(names ...string) *value {
	if found := v.find(names...); found != nil && !found.filled {
		return found
	}
	return nil
}

// find follows keys and list indices down from v; nil if there is nothing.
func (v *value) find(names ...string) *value {
	for _, name := range names {
		var next *value
		switch v.kind {
		case yaml.MappingNode:
			next = v.field(name)
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(v.children) {
				next = v.children[i]
			}
		}
		if next == nil {
			return nil
		}
		v = next
	}
	return v
}

// remove takes a child out.
func (v *value) remove(child *value) {
	for i, c := range v.children {
		if c == child {
			v.children = append(v.children[:i:i], v.children[i+1:]...)
			return
		}
	}
}

// removeBad takes every key below v out that an error was reported for.
func (v *value) removeBad() {
	v.children = slices.DeleteFunc(slices.Clone(v.children), func(c *value) bool { return c.bad })
	for _, c := range v.children {
		c.removeBad()
	}
}

// isNull reports whether the key stands there without a value.
func (v *value) isNull() bool { return v.kind == yaml.ScalarNode && v.tag == tagNull }

// resolve is the tag that YAML gives to a plain text.
func resolve(text string) string {
	return (&yaml.Node{Kind: yaml.ScalarNode, Value: text}).ShortTag()
}

// document is v as the validator takes it. A secret is there, but its text is not.
func (v *value) document() any {
	switch v.kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(v.children))
		for _, c := range v.children {
			m[c.name] = c.document()
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(v.children))
		for i, c := range v.children {
			list[i] = c.document()
		}
		return list
	}
	if v.secret {
		if v.text == "" {
			return ""
		}
		return hidden
	}
	var scalar any
	if err := v.node().Decode(&scalar); err != nil {
		return v.text
	}
	switch x := scalar.(type) {
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return v.text
		}
		// As decimal text: 1.1 is to be compared as 1.1, not as the nearest binary fraction.
		return json.Number(strconv.FormatFloat(x, 'g', -1, 64))
	case nil, bool, int, int64, uint64, string:
		return x
	default:
		return v.text
	}
}

// node is v for the decoder.
func (v *value) node() *yaml.Node {
	n := &yaml.Node{Kind: v.kind, Line: v.where.line, Column: v.where.column}
	switch v.kind {
	case yaml.MappingNode:
		for _, c := range v.children {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: tagText, Value: c.name}, c.node())
		}
	case yaml.SequenceNode:
		for _, c := range v.children {
			n.Content = append(n.Content, c.node())
		}
	default:
		n.Tag, n.Value = v.tag, v.text
	}
	return n
}

// hidden stands for what must not be seen.
const hidden = "<secret>"

// longest is how much of a value an error or warning shows.
const longest = 120

var (
	// secretName matches the names of keys whose values are not shown, known keys or not.
	secretName = regexp.MustCompile(`(?i)secret|passw|passphrase|pwd|token|credential|private|api_?key|access_?key|signature|(^|_)sas($|_)|(^|_)auth($|_)|authorization|connection_?str|cookie|bearer`)
	userInfo   = regexp.MustCompile(`//[^/\s]*@`)
)

// concealed reports whether no part of v may be printed, by its type or by the names above it.
func (v *value) concealed() bool { return v.secret || secretName.MatchString(v.path) }

// show is v as an error or warning prints it: never a secret, never long, on one line.
func (v *value) show() string {
	switch {
	case v.concealed():
		return hidden
	case v.kind == yaml.ScalarNode && v.tag == tagText:
		return "'" + shorten(v.written) + "'"
	default:
		return v.plainShow()
	}
}

// plainShow is like show, without quotes around a text.
func (v *value) plainShow() string {
	if v.concealed() {
		return hidden
	}
	switch v.kind {
	case yaml.MappingNode:
		parts := make([]string, len(v.children))
		for i, c := range v.children {
			parts[i] = "'" + c.name + "': " + c.show()
		}
		return shorten("{" + strings.Join(parts, ", ") + "}")
	case yaml.SequenceNode:
		parts := make([]string, len(v.children))
		for i, c := range v.children {
			parts[i] = c.show()
		}
		return shorten("[" + strings.Join(parts, ", ") + "]")
	default:
		return shorten(v.written)
	}
}

// shorten cuts a text for display and takes the user out of a URL.
func shorten(text string) string {
	text = userInfo.ReplaceAllString(text, "//"+hidden+"@")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}
