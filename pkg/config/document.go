package config

import (
	"fmt"
	"slices"
	"strings"

	described "github.com/invopop/jsonschema"
)

// Reference returns the page that describes every key of the configuration file, in Markdown, the same bytes
// for the same build.
func Reference() ([]byte, error) {
	m, err := model()
	if err != nil {
		return nil, err
	}
	d := &document{}
	d.line("# Configuration")
	d.line("")
	d.line("<!-- Written by the test of pkg/config from the descriptions in the code: go test ./pkg/config -update -->")
	d.line("")
	d.line("One file in YAML or JSON: `--config FILE`, else `$CONFIG_FILE`, else `config.yaml`; a relative name is looked up in `./config/`, then in `./`.")
	d.line("A Collector Server's `/etc/devo/job/job_config.json` and `/etc/devo/collector/collector_config.json` are read instead where both exist, or those named by")
	d.line("`--job_config_loc` and `--collector_config_loc`.")
	d.line("")
	d.line("In any value `${NAME}` stands for an environment variable and `$${` for `${` itself. A secret may be `file:///run/secrets/name`. `collector schema` prints the JSON Schema for editors,")
	d.line("`collector schema --sample` a file to begin with. Certificates are relative to `./certs/`.")
	d.line("")
	d.line("An unknown key is a warning directly below the root, in `globals`, in an output and directly in an input; anywhere else it is an error. All errors of a file are reported at once, with")
	d.line("file, line, column, key, value and what is allowed; the exit code is 255 and nothing was started.")
	d.mapping("", m.root, 2)
	if len(d.idle) > 0 {
		d.line("")
		d.line("## Keys without effect")
		d.line("")
		d.line("These are accepted, so that a file need not be changed, and answered by one warning.")
		d.line("")
		d.line("| key | what takes its place |")
		d.line("|---|---|")
		for _, row := range d.idle {
			d.line(row)
		}
	}
	return []byte(d.b.String()), nil
}

// document is a page in the making.
type document struct {
	b    strings.Builder
	idle []string // rows of the keys without effect
}

func (d *document) line(text string) {
	d.b.WriteString(text)
	d.b.WriteByte('\n')
}

// mapping describes the keys of a mapping, then the mappings below it.
func (d *document) mapping(path string, s *described.Schema, level int) {
	type section struct {
		path   string
		schema *described.Schema
	}
	var sections []section
	var rows []string
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		key, child := join(path, p.Key), p.Value
		if place, ok := strings.CutPrefix(child.Description, withoutEffect); ok {
			d.idle = append(d.idle, fmt.Sprintf("| `%s` | %s |", key, cell(place)))
			continue
		}
		if inner, at := within(key, child); inner != nil && (path != "" || at != "") {
			sections = append(sections, section{at, inner})
			if path == "" {
				continue
			}
		}
		required := ""
		if slices.Contains(s.Required, p.Key) {
			required = "**required**"
		}
		switch initial := byDefault(child).(type) {
		case nil:
		case []any:
			required = "`" + strings.Join(texts(initial), "`, `") + "`"
		default:
			required = fmt.Sprintf("`%v`", initial)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", p.Key, cell(allowed(child)), required, cell(child.Description)))
	}
	if path != "" && len(rows) > 0 {
		d.line("")
		d.line(strings.Repeat("#", level) + " `" + path + "`")
		d.line("")
		if level == 2 { // below it, the row of the key has said so
			d.line(s.Description)
			d.line("")
		}
		d.line("| key | allowed | default | |")
		d.line("|---|---|---|---|")
		for _, row := range rows {
			d.line(row)
		}
		if sentences := rules(s); len(sentences) > 0 {
			d.line("")
			for _, sentence := range sentences {
				d.line("- " + sentence)
			}
		}
		level = min(level+1, 4)
	}
	for _, sub := range sections {
		d.mapping(sub.path, sub.schema, level)
	}
}

// within is the mapping that a key holds, directly, by names or as a list, and its path; nil if it holds none.
func within(key string, s *described.Schema) (*described.Schema, string) {
	switch {
	case s.Properties != nil && s.Properties.Len() > 0:
		return s, key
	case s.AdditionalProperties != nil && s.AdditionalProperties.Properties != nil && s.AdditionalProperties.Properties.Len() > 0:
		named := *s.AdditionalProperties
		if named.Description == "" {
			named.Description = s.Description
		}
		return &named, key + ".<name>"
	case s.Items != nil && s.Items.Properties != nil && s.Items.Properties.Len() > 0:
		return s.Items, key + "[]"
	}
	return nil, ""
}

// rules are the sentences about keys that exclude or need each other, as they are printed when one is broken.
func rules(s *described.Schema) (sentences []string) {
	for _, rule := range s.AllOf {
		if rule.Description != "" {
			sentences = append(sentences, rule.Description)
		}
	}
	return sentences
}

// allowed says what may stand there, in the words of the errors.
func allowed(s *described.Schema) string {
	if len(s.Enum) > 0 {
		return "`" + strings.Join(texts(s.Enum), "`, `") + "`"
	}
	types := []string{s.Type}
	if several, ok := s.Extras["type"].([]string); ok {
		types = several
	}
	var words []string
	for _, name := range types {
		words = append(words, plainType(name))
	}
	text := strings.Join(words, " or ")
	switch {
	case s.Minimum != "" && s.Maximum != "":
		text += fmt.Sprintf(" from %s to %s", s.Minimum, s.Maximum)
	case s.Minimum != "":
		text += fmt.Sprintf(" from %s", s.Minimum)
	case s.Maximum != "":
		text += fmt.Sprintf(" up to %s", s.Maximum)
	case s.Pattern != "":
		text += ", `" + s.Pattern + "`"
	}
	if s.Items != nil && s.Items.Properties == nil {
		item, pattern, _ := strings.Cut(allowed(s.Items), ", ")
		text += " of " + strings.TrimPrefix(item, "a ") + "s"
		if pattern != "" {
			text += ", each " + pattern
		}
	}
	return text
}

func texts(values []any) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = fmt.Sprint(v)
	}
	return all
}

func plainType(name string) string {
	if name == "" {
		return "any"
	}
	if text, ok := typeNames[name]; ok {
		return text
	}
	return name
}

// cell makes text fit into a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
