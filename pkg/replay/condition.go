package replay

import (
	"fmt"
	"strings"

	"github.com/tidwall/gjson"

	"defenderiot/proto"
)

// Condition is one field=value that a selected alert must have. The fields input and service are the source's;
// every other one is a path of names with dots into the row as it was sent, names in Azure's spelling. A
// list is passed through: one of its elements must fit. Texts compare whole and as they are, numbers as
// written, and true, false, null by their names.
type Condition struct {
	text  string
	names []string
	value string
}

// ParseCondition reads field=value; the value may hold further equals signs and may be empty.
func ParseCondition(text string) (Condition, error) {
	field, value, found := strings.Cut(text, "=")
	names := strings.Split(field, ".")
	for _, n := range names {
		found = found && n != ""
	}
	if !found {
		return Condition{}, fmt.Errorf("%.100q is not field=value, for example properties.severity=High", text)
	}
	return Condition{text: text, names: names, value: value}, nil
}

// String is the text that it was read from.
func (c Condition) String() string { return c.text }

func (c Condition) matches(e *proto.Envelope) bool {
	if len(c.names) == 1 {
		switch c.names[0] {
		case "input":
			return e.Source.Input == c.value
		case "service":
			return e.Source.Service == c.value
		}
	}
	return c.in(gjson.ParseBytes(e.Row), c.names)
}

func (c Condition) in(r gjson.Result, names []string) bool {
	found := false
	switch {
	case r.IsArray():
		r.ForEach(func(_, element gjson.Result) bool {
			found = c.in(element, names)
			return !found
		})
	case len(names) == 0:
		if r.Type == gjson.String {
			return r.Str == c.value
		}
		return !r.IsObject() && r.Raw == c.value
	case r.IsObject():
		r.ForEach(func(key, member gjson.Result) bool {
			// A member's name may hold dots itself.
			for n := 1; n <= len(names) && !found; n++ {
				found = key.Str == strings.Join(names[:n], ".") && c.in(member, names[n:])
			}
			return !found
		})
	}
	return found
}
