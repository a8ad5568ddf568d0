package obfuscation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The properties are checked with encoding/json and a second, slow and simple, understanding of the rules: it
// works on a decoded document, without offsets, and knows nothing of the scanner.

// member keeps the order and the repetition of keys, which a map would lose.
type member struct {
	key   string
	value node
}

type node struct {
	kind     byte // '{', '[', or 's' for a scalar
	members  []member
	elements []node
	raw      string // of a scalar
}

// failer is what is common to tests and properties.
type failer interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func parse(t failer, data []byte) node {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return parseNext(t, dec)
}

func parseNext(t failer, dec *json.Decoder) node {
	token, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	var n node
	switch token := token.(type) {
	case json.Delim:
		n.kind = byte(token)
		for dec.More() {
			if token == '[' {
				n.elements = append(n.elements, parseNext(t, dec))
				continue
			}
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			text, _ := key.(string)
			n.members = append(n.members, member{text, parseNext(t, dec)})
		}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
	case nil:
		n.kind, n.raw = 's', "null"
	case string:
		n.kind, n.raw = 's', strconv.Quote(token)
	default:
		n.kind, n.raw = 's', fmt.Sprint(token)
	}
	return n
}

// under calls found for every scalar that the path is to mask, named by its place in the document.
func under(n node, path []string, meant bool, place string, found func(place, raw string)) {
	switch {
	case n.kind == 's':
		if len(path) == 0 || meant {
			found(place, n.raw)
		}
	case n.kind == '{':
		for i, m := range n.members {
			here := fmt.Sprintf("%s/%d", place, i)
			switch {
			case len(path) == 0:
				under(m.value, nil, true, here, found)
			case path[0] == "*" || path[0] == m.key:
				under(m.value, path[1:], path[0] != "*", here, found)
			}
		}
	default:
		index := -1
		if len(path) > 0 {
			if n, err := strconv.ParseUint(path[0], 10, 31); err == nil {
				index = int(n)
			} else if path[0] != "*" {
				if !meant {
					return
				}
				path = nil
			}
		}
		for i, e := range n.elements {
			here := fmt.Sprintf("%s/%d", place, i)
			switch {
			case len(path) == 0:
				under(e, nil, true, here, found)
			case path[0] == "*" || index == i:
				under(e, path[1:], path[0] != "*", here, found)
			}
		}
	}
}

// scalars lists all places of the document with what stands there.
func scalars(n node) map[string]string {
	all := map[string]string{}
	under(n, nil, true, "", func(place, raw string) { all[place] = raw })
	return all
}

func kindOf(raw string) string {
	switch {
	case raw == "true" || raw == "false":
		return "boolean"
	case raw[0] == '"':
		return "text"
	case strings.ContainsAny(raw, ".eE"):
		return "float"
	}
	return "integer"
}
