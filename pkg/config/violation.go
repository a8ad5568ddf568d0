package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	validating "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// validate checks the tree against the schema and puts each violation into words, at its place.
func validate(root *value, m *schemaModel, r *report) {
	err := m.validator.Validate(root.document())
	if err == nil {
		return
	}
	violation, ok := errors.AsType[*validating.ValidationError](err)
	if !ok {
		r.fail(root, codeStructure, "the file cannot be validated: %s", err)
		return
	}
	w := wording{report: r, model: m, root: root}
	w.walk(violation)
}

// wording turns the validator's violations into problems.
type wording struct {
	*report
	model *schemaModel
	root  *value
}

// walk goes down to the violations that say something by themselves. The branches of anyOf, oneOf and
// not are no news: the description of such a rule says what is wrong.
func (w *wording) walk(e *validating.ValidationError) {
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.PropertyNames:
		w.say(e)
		return
	}
	if len(e.Causes) == 0 {
		w.say(e)
		return
	}
	for _, c := range e.Causes {
		w.walk(c)
	}
}

// say notes one violation.
func (w *wording) say(e *validating.ValidationError) {
	v := w.root.find(e.InstanceLocation...)
	if names, ok := e.ErrorKind.(*kind.PropertyNames); ok {
		w.badName(e.SchemaURL, names.Property)
		return
	}
	if v == nil {
		v = w.root
	}
	if v.bad {
		return
	}
	schema := lookup(w.model.raw, e.SchemaURL)
	at := v.keyPosition()
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			w.missing(v, name)
		}
	case *kind.DependentRequired:
		for _, name := range k.Missing {
			w.failAt(at.line, at.column, codeMissing, v.path, "required key '%s' is missing; %s needs it", name, k.Prop)
		}
	case *kind.AdditionalProperties:
		w.unknown(v, k.Properties, schema)
	case *kind.MinProperties:
		w.failAt(at.line, at.column, codeStructure, v.path, "The configuration structure is not correct: the section is empty")
	case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.MaxProperties:
		text, _ := schema["description"].(string)
		code := codeStructure
		if strings.HasPrefix(text, "required key") {
			code = codeMissing
		}
		w.failAt(at.line, at.column, code, v.path, "%s", text)
	default:
		if v == w.root {
			w.fail(v, codeStructure, "The configuration structure is not correct: %s", w.scalar(v, e.ErrorKind, schema))
			return
		}
		w.fail(v, w.code(v, e.ErrorKind), "%s", w.scalar(v, e.ErrorKind, schema))
	}
}

// code is the number of a violation at v.
func (w *wording) code(v *value, k validating.ErrorKind) int {
	if v.path == "globals.name" {
		return codeName
	}
	if _, isEnum := k.(*kind.Enum); isEnum && isTypeOfOutput(v) {
		return codeOutput
	}
	return codeStructure
}

// outputList begins what is known about an output whose type is not.
const outputList = "OutputSenderManagerListStandard"

// isOutput reports whether v is an entry of `outputs`.
func isOutput(v *value) bool { return strings.TrimSuffix(v.path, v.name) == "outputs." }

func isTypeOfOutput(v *value) bool {
	path, ok := strings.CutSuffix(v.path, ".type")
	return ok && strings.HasPrefix(path, "outputs.") && strings.Count(path, ".") == 1
}

// missing notes a required key that is not there. Its wording at the root and for globals.id is known.
func (w *wording) missing(v *value, name string) {
	at := v.keyPosition()
	switch {
	case v == w.root:
		w.failAt(at.line, at.column, codeStructure, "", "The configuration structure is not correct: section %s is missing; globals, inputs and outputs are required", name)
	case v.path == "globals" && name == "id":
		w.failAt(at.line, at.column, codeMissing, "", `Required "globals.id" entry not found in configuration`)
		w.problems[len(w.problems)-1].known = true
	case name == "type" && isOutput(v) && len(v.children) == 0:
		w.failAt(at.line, at.column, codeOutput, v.path, "%s -> %s does not containing any property; required key 'type' is missing", outputList, v.name)
	case name == "type" && isOutput(v):
		w.failAt(at.line, at.column, codeOutput, v.path, "%s -> %s contains an unknown output_type; required key 'type' is missing", outputList, v.name)
	default:
		w.failAt(at.line, at.column, codeMissing, v.path, "required key '%s' is missing", name)
	}
}

// unknown notes the keys that may not stand in v.
func (w *wording) unknown(v *value, names []string, schema map[string]any) {
	known, _ := schema["properties"].(map[string]any)
	var candidates []string
	for name := range known {
		candidates = append(candidates, name)
	}
	slices.Sort(candidates)
	for _, name := range names {
		c := v.field(name)
		if c == nil {
			continue
		}
		text := "unknown key; allowed: " + strings.Join(candidates, ", ")
		if near := nearest(name, candidates); near != "" {
			text = "unknown key; did you mean " + near + "?"
		}
		at := c.keyPosition()
		w.failAt(at.line, at.column, codeStructure, shorten(c.path), "%s", text)
	}
}

// badName notes the name of an output or input. The validator gives no usable place with it (v6.0.3
// hands out a slice that it goes on to overwrite), so the schema's address tells the section.
func (w *wording) badName(address, name string) {
	section, text := "outputs", "an empty name is not allowed"
	if strings.HasSuffix(address, "/inputs/propertyNames") {
		section = "inputs"
		text = fmt.Sprintf("no such input; allowed: %s, and further ones as %s_<letters, digits, _ or ->", InputName, InputName)
	}
	at, path := position{1, 1}, section
	if c := w.root.find(section, name); c != nil {
		at, path = c.keyPosition(), c.path
	}
	w.failAt(at.line, at.column, codeName, shorten(path), "%s", text)
}

// typeNames are the types of JSON Schema in plain words.
var typeNames = map[string]string{
	"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
	"object": "a mapping of keys", "array": "a list", "null": "nothing",
}

// scalar says what a value is and what is allowed.
func (w *wording) scalar(v *value, k validating.ErrorKind, schema map[string]any) string {
	switch k := k.(type) {
	case *kind.Type:
		want := make([]string, len(k.Want))
		for i, name := range k.Want {
			want[i] = typeNames[name]
		}
		allowed := strings.Join(want, " or ") + limits(schema)
		if slices.Contains(k.Want, "object") || slices.Contains(k.Want, "array") || len(v.children) > 0 {
			return fmt.Sprintf("%s stands here; allowed: %s", typeNames[k.Got], allowed)
		}
		return fmt.Sprintf("%s is not allowed; allowed: %s", v.show(), allowed)
	case *kind.Enum:
		names := make([]string, len(k.Want))
		for i, want := range k.Want {
			names[i] = fmt.Sprint(want)
		}
		text := fmt.Sprintf("%s is not allowed; allowed: %s", v.show(), strings.Join(names, ", "))
		if isTypeOfOutput(v) {
			text = fmt.Sprintf("%s -> %s contains an unknown output_type; %s", outputList, strings.Split(v.path, ".")[1], text)
		}
		if near := nearest(v.written, names); near != "" && v.tag == tagText {
			text += "; did you mean " + near + "?"
		}
		return text
	case *kind.Minimum, *kind.Maximum:
		return fmt.Sprintf("%s is not allowed; allowed: %s%s", v.show(), typeNames[fmt.Sprint(schema["type"])], limits(schema))
	case *kind.Pattern:
		if text, ok := schema["description"].(string); ok {
			return fmt.Sprintf("%s is not allowed; allowed: what matches %s. %s", v.show(), k.Want, text)
		}
		return fmt.Sprintf("%s is not allowed; allowed: what matches %s", v.show(), k.Want)
	case *kind.MinLength:
		return "an empty value is not allowed"
	case *kind.MaxLength:
		return fmt.Sprintf("%d characters are not allowed; allowed: at most %d", k.Got, k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("a list of %d is not allowed; allowed: at least %d", k.Got, k.Want)
	case *kind.UniqueItems:
		return fmt.Sprintf("entries %d and %d of the list are the same", k.Duplicates[0]+1, k.Duplicates[1]+1)
	default:
		// No keyword of the schema comes here; if one is added, its own words still name no value.
		return message.NewPrinter(language.English).Sprintf("breaks the rule %s", strings.Join(k.KeywordPath(), "/"))
	}
}

// limits is the range that a schema allows, or "".
func limits(schema map[string]any) string {
	low, hasLow := schema["minimum"]
	high, hasHigh := schema["maximum"]
	switch {
	case hasLow && hasHigh:
		return fmt.Sprintf(" from %v to %v", low, high)
	case hasLow:
		return fmt.Sprintf(" from %v", low)
	case hasHigh:
		return fmt.Sprintf(" up to %v", high)
	}
	return ""
}
