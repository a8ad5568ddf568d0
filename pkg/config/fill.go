package config

import (
	"fmt"
	"reflect"

	described "github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v3"
)

// fill adds the defaults of the keys that are absent. A section that is a struct is there even if the
// file does not have it; one that is a pointer is not.
func fill(v *value, t reflect.Type, schema *described.Schema) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == secretType || reflect.PointerTo(t).Implements(textType):
	case t.Kind() == reflect.Struct && v.kind == yaml.MappingNode:
		for name, fieldType := range fields(t) {
			declared, child := property(schema, name), v.field(name)
			if child == nil {
				if child = initial(fieldType, declared); child == nil {
					continue
				}
				child.name, child.path, child.where = name, join(v.path, name), v.where
				v.children = append(v.children, child)
			}
			fill(child, fieldType, declared)
		}
	case t.Kind() == reflect.Map:
		for _, c := range v.children {
			fill(c, t.Elem(), schema.AdditionalProperties)
		}
	case t.Kind() == reflect.Slice:
		for _, c := range v.children {
			fill(c, t.Elem(), schema.Items)
		}
	}
}

// initial is the value of an absent key, or nil.
func initial(t reflect.Type, schema *described.Schema) *value {
	switch d := byDefault(schema).(type) {
	case nil:
	case []any:
		list := &value{kind: yaml.SequenceNode, filled: true}
		for _, item := range d {
			list.children = append(list.children, literal(item, t.Elem()))
		}
		return list
	default:
		return literal(d, t)
	}
	if t.Kind() == reflect.Struct && schema.Type == "object" {
		return &value{kind: yaml.MappingNode, filled: true}
	}
	return nil
}

// literal is a scalar that the file does not hold.
func literal(d any, t reflect.Type) *value {
	v := &value{kind: yaml.ScalarNode, text: fmt.Sprint(d), filled: true}
	v.written = v.text
	if v.tag = resolve(v.text); t.Kind() == reflect.String || t.Kind() == reflect.Struct {
		v.tag = tagText
	}
	return v
}
