package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxValues bounds the tree after aliases are expanded: ten aliases of ten, ten levels deep, are
	// a small file and a large tree.
	maxValues = 100_000
	// maxDepth bounds how deep the tree may be.
	maxDepth = 100
)

var (
	yamlPlace  = regexp.MustCompile(`line ([0-9]+): `)
	anchorName = regexp.MustCompile(`^unknown anchor '([^']*)'`)
)

// readYAML turns the bytes of a YAML file into a tree; nil if it failed or is empty, which is noted.
func readYAML(data []byte, r *report) *value {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			r.failAt(1, 1, codeMissing, "", "Required configuration data is missing: the file is empty")
			return nil
		}
		failYAML(r, data, err)
		return nil
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		failYAML(r, data, err)
		return nil
	default:
		r.failAt(second.Line, 1, codeYAML, "", "Configuration content file is not correct, details: a second document starts here; one is allowed")
		return nil
	}
	e := expander{report: r, open: make(map[*yaml.Node]bool)}
	root := e.value(document.Content[0], "", "", position{}, 0)
	if e.stopped {
		return nil
	}
	return root
}

// failYAML notes the parser's error, at its line.
func failYAML(r *report, data []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := anchorName.FindStringSubmatch(text); m != nil {
		// The parser gives no line with this one. Its name may be a secret that starts with *.
		text = "what starts with * names an anchor, and there is none of this name; a text that starts with * must stand in quotes"
		line += bytes.Count(data[:max(0, bytes.Index(data, []byte("*"+m[1])))], []byte("\n"))
	}
	if m := yamlPlace.FindStringSubmatchIndex(text); m != nil {
		if n, err := strconv.Atoi(text[m[2]:m[3]]); err == nil {
			line = n
		}
		text = text[:m[0]] + text[m[1]:]
	}
	if lines := bytes.Split(data, []byte("\n")); line <= len(lines) && bytes.Contains(lines[line-1], []byte("${")) {
		text += "; within { } and [ ] a ${NAME} must stand in quotes"
	}
	r.failAt(line, 1, codeYAML, "", "Configuration content file is not correct, details: %s", text)
}

// expander copies YAML nodes into values: aliases and merge keys are replaced by what they stand for,
// repeated keys are noted.
type expander struct {
	report  *report
	count   int
	open    map[*yaml.Node]bool // the aliased nodes above the present one
	stopped bool
}

// stop notes why the tree cannot be built and ends the work.
func (e *expander) stop(n *yaml.Node, path, text string) {
	if !e.stopped {
		e.report.failAt(n.Line, n.Column, codeYAML, path, "Configuration content file is not correct, details: %s", text)
	}
	e.stopped = true
}

// value copies n; it returns an empty scalar once the work has stopped.
func (e *expander) value(n *yaml.Node, name, path string, key position, depth int) *value {
	v := &value{kind: yaml.ScalarNode, tag: tagNull, name: name, path: path, where: position{n.Line, n.Column}, key: key}
	if e.count++; e.count > maxValues {
		e.stop(n, path, "more than "+strconv.Itoa(maxValues)+" values")
	}
	if depth > maxDepth {
		e.stop(n, path, "more than "+strconv.Itoa(maxDepth)+" levels")
	}
	if e.stopped {
		return v
	}
	switch n.Kind {
	case yaml.AliasNode:
		if e.open[n.Alias] {
			e.stop(n, path, "an alias stands within its own anchor")
			return v
		}
		e.open[n.Alias] = true
		v = e.value(n.Alias, name, path, key, depth)
		delete(e.open, n.Alias)
	case yaml.SequenceNode:
		v.kind = yaml.SequenceNode
		for i, item := range n.Content {
			v.children = append(v.children, e.value(item, "", path+"["+strconv.Itoa(i)+"]", position{}, depth+1))
		}
	case yaml.MappingNode:
		v.kind = yaml.MappingNode
		e.mapping(v, n, depth)
	case yaml.ScalarNode:
		v.tag, v.text, v.written = n.ShortTag(), n.Value, n.Value
		v.plain = n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	}
	return v
}

// mapping copies the keys of n into v. What a merge key brings in comes after the mapping's own keys
// and does not replace them (https://yaml.org/type/merge.html).
func (e *expander) mapping(v *value, n *yaml.Node, depth int) {
	var merged []*yaml.Node
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			e.stop(n.Content[i], v.path, "a key must be a text")
			return
		}
		if key.ShortTag() == "!!merge" {
			merged = append(merged, content)
			continue
		}
		if line, ok := lines[key.Value]; ok {
			e.report.failAt(key.Line, key.Column, codeYAML, join(v.path, key.Value), "the key stands here a second time; the first is in line %d", line)
			continue
		}
		lines[key.Value] = key.Line
		v.children = append(v.children, e.value(content, key.Value, join(v.path, key.Value), position{key.Line, key.Column}, depth+1))
	}
	for _, content := range merged {
		from := e.value(content, "", v.path, position{}, depth+1)
		sources := []*value{from}
		if from.kind == yaml.SequenceNode {
			sources = from.children
		}
		for _, source := range sources {
			if source.kind != yaml.MappingNode {
				e.stop(content, v.path, "a merge key needs a mapping or a list of mappings")
				return
			}
			for _, c := range source.children {
				if v.field(c.name) == nil {
					rebase(c, join(v.path, c.name))
					v.children = append(v.children, c)
				}
			}
		}
	}
}

// rebase gives v and what is below it the path that it has after a merge.
func rebase(v *value, path string) {
	v.path = path
	for i, c := range v.children {
		if v.kind == yaml.MappingNode {
			rebase(c, join(path, c.name))
		} else {
			rebase(c, path+"["+strconv.Itoa(i)+"]")
		}
	}
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
