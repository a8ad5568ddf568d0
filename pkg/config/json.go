package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readJSON turns the bytes of a JSON file into a tree; nil if it failed or is empty, which is noted.
// A YAML parser would not do: it refuses the surrogate pairs that JSON writes characters beyond the
// basic plane with, and the tabs that JSON is often indented by.
func readJSON(data []byte, r *report) *value {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		r.failAt(1, 1, codeMissing, "", "Required configuration data is missing: the file is empty")
		return nil
	}
	j := &jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), report: r}
	j.decoder.UseNumber()
	for i, b := range data {
		if b == '\n' {
			j.newlines = append(j.newlines, i)
		}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		offset := len(data)
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			offset = int(syntax.Offset) - 1
		}
		where := j.position(offset)
		r.failAt(where.line, where.column, codeJSON, "", "Configuration content file is not correct, details: %s", err)
		return nil
	}
	root := j.value("", "", position{}, 0)
	if j.stopped {
		return nil
	}
	return root
}

// jsonReader builds the tree from tokens; the bytes are valid JSON.
type jsonReader struct {
	data     []byte
	newlines []int // offsets
	decoder  *json.Decoder
	report   *report
	stopped  bool
}

// position is the line and column of an offset.
func (j *jsonReader) position(offset int) position {
	offset = max(0, min(offset, len(j.data)))
	line := sort.SearchInts(j.newlines, offset)
	start := 0
	if line > 0 {
		start = j.newlines[line-1] + 1
	}
	return position{line + 1, offset - start + 1}
}

// token reads the next token and where it starts; false at a failure, which is noted.
func (j *jsonReader) token() (json.Token, position, bool) {
	start := int(j.decoder.InputOffset())
	for start < len(j.data) && strings.IndexByte(" \t\r\n,:", j.data[start]) >= 0 {
		start++
	}
	where := j.position(start)
	token, err := j.decoder.Token()
	if err != nil && !j.stopped {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		j.stop(where, "", err.Error())
	}
	return token, where, err == nil
}

// stop notes why the tree cannot be built.
func (j *jsonReader) stop(where position, path, text string) {
	if !j.stopped {
		j.report.failAt(where.line, where.column, codeJSON, path, "Configuration content file is not correct, details: %s", text)
	}
	j.stopped = true
}

// value reads one value.
func (j *jsonReader) value(name, path string, key position, depth int) *value {
	v := &value{kind: yaml.ScalarNode, tag: tagNull, name: name, path: path, key: key}
	token, where, ok := j.token()
	if v.where = where; !ok {
		return v
	}
	if depth > maxDepth {
		j.stop(where, path, "more than "+strconv.Itoa(maxDepth)+" levels")
		return v
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			v.kind = yaml.MappingNode
			j.members(v, depth)
		} else {
			v.kind = yaml.SequenceNode
			j.items(v, depth)
		}
	case string:
		v.tag, v.text = tagText, t
	case json.Number:
		v.tag, v.text = tagInt, t.String()
		if strings.ContainsAny(v.text, ".eE") {
			v.tag = tagFloat
		}
	case bool:
		v.tag, v.text = tagBool, strconv.FormatBool(t)
	}
	v.written = v.text
	return v
}

// members reads an object up to its end.
func (j *jsonReader) members(v *value, depth int) {
	lines := make(map[string]int)
	for !j.stopped && j.decoder.More() {
		token, where, ok := j.token()
		name, isText := token.(string)
		if !ok || !isText {
			return
		}
		child := j.value(name, join(v.path, name), where, depth+1)
		if line, ok := lines[name]; ok {
			j.report.failAt(where.line, where.column, codeJSON, child.path, "the key stands here a second time; the first is in line %d", line)
			continue
		}
		lines[name] = where.line
		v.children = append(v.children, child)
	}
	if !j.stopped {
		j.token()
	}
}

// items reads an array up to its end.
func (j *jsonReader) items(v *value, depth int) {
	for !j.stopped && j.decoder.More() {
		path := v.path + "[" + strconv.Itoa(len(v.children)) + "]"
		v.children = append(v.children, j.value("", path, position{}, depth+1))
	}
	if !j.stopped {
		j.token()
	}
}
