package config

import (
	"net/url"
	"reflect"
	"strconv"
	"strings"

	described "github.com/invopop/jsonschema"
	orderedmap "github.com/pb33f/ordered-map/v2"
)

// properties is a set of one property.
func properties(name string, s *described.Schema) *orderedmap.OrderedMap[string, *described.Schema] {
	p := described.NewProperties()
	p.Set(name, s)
	return p
}

// property is the schema of a key of a mapping, or nil.
func property(s *described.Schema, name string) *described.Schema {
	if s == nil || s.Properties == nil {
		return nil
	}
	p, _ := s.Properties.Get(name)
	return p
}

// strict reports whether an unknown key is an error.
func strict(s *described.Schema) bool { return s.AdditionalProperties != nil }

// byDefault is the default of a key, or nil.
func byDefault(s *described.Schema) any {
	if s.Default != nil {
		return s.Default
	}
	return s.Extras["default"]
}

// keys are the known keys of a mapping.
func keys(s *described.Schema) []string {
	var names []string
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		names = append(names, p.Key)
	}
	return names
}

// fields are the fields of a struct by their key.
func fields(t reflect.Type) map[string]reflect.Type {
	byKey := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" {
			byKey[name] = t.Field(i).Type
		}
	}
	return byKey
}

// lookup follows the fragment of a schema's address down the decoded schema; nil if there is nothing.
func lookup(raw any, address string) map[string]any {
	_, fragment, _ := strings.Cut(address, "#")
	for _, token := range strings.Split(strings.TrimPrefix(fragment, "/"), "/") {
		if token == "" {
			continue
		}
		if plain, err := url.PathUnescape(token); err == nil {
			token = plain
		}
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch node := raw.(type) {
		case map[string]any:
			raw = node[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(node) {
				return nil
			}
			raw = node[i]
		}
	}
	found, _ := raw.(map[string]any)
	return found
}
