package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"

	"defenderiot/pkg/secret"

	described "github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v3"
)

var (
	secretType = reflect.TypeFor[secret.String]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// withoutEffect starts the description of a key that people's files have and that means nothing here;
// the rest of the description says what takes its place.
const withoutEffect = "Accepted, without effect: "

// shaper brings a tree towards its declared types before it is validated: references are resolved,
// scalars get their type's tag, keys without a value and ignored keys are taken out.
type shaper struct {
	*report
	env func(string) (string, bool)
	now time.Time
}

// shape works on v, which is declared as t and s.
func (s *shaper) shape(v *value, t reflect.Type, schema *described.Schema) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v.kind == yaml.ScalarNode && !v.isNull() {
		s.expand(v)
	}
	switch {
	case t == secretType:
		s.secret(v)
	case reflect.PointerTo(t).Implements(textType):
		s.scalar(v, t)
	case t.Kind() == reflect.Struct:
		s.fields(v, t, schema)
	case t.Kind() == reflect.Map:
		if v.kind == yaml.MappingNode {
			for _, c := range v.children {
				s.shape(c, t.Elem(), schema.AdditionalProperties)
			}
		}
	case t.Kind() == reflect.Slice:
		if v.kind == yaml.SequenceNode {
			for _, c := range v.children {
				s.shape(c, t.Elem(), schema.Items)
			}
		}
	case v.kind == yaml.ScalarNode:
		s.retag(v, t.Kind())
	}
}

// fields works on the keys of a struct. A struct without a value is one whose keys are all absent; any
// other key without a value is as if it were absent itself.
func (s *shaper) fields(v *value, t reflect.Type, schema *described.Schema) {
	if v.isNull() && v.path != "" && strings.Contains(v.path, ".") {
		v.kind = yaml.MappingNode
	}
	if v.kind != yaml.MappingNode {
		return
	}
	known := fields(t)
	for _, c := range append([]*value(nil), v.children...) {
		fieldType, ok := known[c.name]
		if !ok {
			if !strict(schema) {
				s.ignore(c, v, schema)
			}
			continue
		}
		declared := property(schema, c.name)
		s.shape(c, fieldType, declared)
		if c.name == "request_period_in_seconds" {
			s.truncate(c)
		}
		if c.isNull() {
			v.remove(c)
			continue
		}
		if place, ok := strings.CutPrefix(declared.Description, withoutEffect); ok {
			s.warn(c.key.line, c.key.column, c.path, "", fmt.Sprintf("Setting without effect -> %s: %s", c.path, strings.TrimSuffix(place, ".")))
		}
	}
}

// truncate leaves the fraction of a number out, with a warning: of this key the known collector does so.
func (s *shaper) truncate(v *value) {
	whole, err := strconv.ParseFloat(v.text, 64)
	if err != nil || v.tag != tagFloat || whole < 1 || whole > math.MaxInt32 || whole == math.Trunc(whole) {
		return
	}
	taken := strconv.Itoa(int(whole))
	s.warn(v.where.line, v.where.column, v.path, "", fmt.Sprintf("%s: %s is taken as %s", v.path, v.show(), taken))
	v.text, v.tag = taken, tagInt
}

// ignore takes an unknown key out, with the warning that people know for globals.
func (s *shaper) ignore(c, from *value, schema *described.Schema) {
	from.remove(c)
	text := fmt.Sprintf("[WARNING] Illegal setting has been ignored -> %s: %s", c.path, c.plainShow())
	if from.path == "globals" {
		text = fmt.Sprintf("[WARNING] Illegal global setting has been ignored -> %s: %s", c.name, c.plainShow())
	}
	hint := ""
	if near := nearest(c.name, keys(schema)); near != "" {
		hint = "did you mean " + near + "?"
	}
	at := c.keyPosition()
	s.warn(at.line, at.column, c.path, hint, text)
}

// retag gives a scalar the tag of its declared kind, as far as its text allows: a text is taken as it
// is written (23453, 2023-10-01, yes), a quoted number is a number, and the yes and no of YAML 1.1 are
// true and false, as they were for the known collector.
func (s *shaper) retag(v *value, kind reflect.Kind) {
	if v.isNull() {
		return
	}
	switch kind {
	case reflect.String:
		v.tag = tagText
	case reflect.Bool:
		switch strings.ToLower(v.text) {
		case "true", "yes", "on":
			v.tag, v.text = tagBool, "true"
		case "false", "no", "off":
			v.tag, v.text = tagBool, "false"
		}
	case reflect.Int, reflect.Float64:
		if tag := resolve(v.text); v.tag == tagText && (tag == tagInt || tag == tagFloat) {
			v.tag = tag
		}
	default: // any scalar
		switch v.tag {
		case tagText, tagInt, tagFloat, tagBool:
		default:
			v.tag = tagText // a timestamp stays as it is written
		}
	}
}

// scalar tries the type's own reader, which knows more than the schema's pattern.
func (s *shaper) scalar(v *value, t reflect.Type) {
	if v.kind != yaml.ScalarNode || v.isNull() {
		return
	}
	if v.tag = tagText; v.bad {
		return
	}
	typed := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	err := typed.UnmarshalText([]byte(v.text))
	switch typed := typed.(type) {
	case *StartTime:
		switch {
		case err != nil:
			s.failStart(v, 1, "Must be in parseable datetime format.", err.Error())
		case !typed.Time.Before(s.now):
			s.failStart(v, 2, "Must be in the past.", "a time before now")
		}
		return
	case *From:
		if err == nil && typed.Time.After(s.now) {
			err = errors.New("now, beginning or a time in the past")
		}
	case *regexp.Regexp:
		if err != nil {
			reason := "it cannot be parsed"
			if parse, ok := errors.AsType[*syntax.Error](err); ok {
				reason = parse.Code.String() // without the expression, which is shown as written
			}
			err = errors.New("a regular expression (RE2); " + reason)
		}
	}
	if err != nil {
		s.fail(v, codeStructure, "%s is not allowed; allowed: %s", v.show(), err)
	}
}
