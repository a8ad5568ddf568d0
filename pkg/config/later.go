package config

import (
	"strings"

	"defenderiot/pkg/fault"
)

// place is where a key stands and what stands there, as an error shows it; no secret is in it.
type place struct{ at, shown string }

// noted is the places of all keys of the file, by path, and of the list entries between them.
func (r *report) noted(root *value) map[string]place {
	places := make(map[string]place)
	var note func(v *value)
	note = func(v *value) {
		if v.filled {
			return
		}
		p := place{at: r.at(v.where.line, v.where.column)}
		switch {
		case len(v.children) > 0:
			at := v.keyPosition()
			p.at = r.at(at.line, at.column)
		case !v.concealed():
			p.shown = v.show()
		}
		places[v.path] = p
		for _, c := range v.children {
			note(c)
		}
	}
	note(root)
	return places
}

// Invalid makes the error of a value that only its user finds wrong, such as a file that holds no certificate.
// It reads like those of [Load]: file, line, column, key, value (none of a mapping, a list or what may be
// secret), why, which must hold no secret, and what is allowed. A key that the file does not have is placed at
// the nearest one above it.
func (c *Config) Invalid(code int, key, why, allowed string) *fault.Error {
	text, above := key+": ", key
	for {
		if p, ok := c.places[above]; ok {
			text = p.at + ": " + text
			if above == key && p.shown != "" {
				text += p.shown + " is not allowed; "
			}
			break
		}
		i := strings.LastIndexAny(above, ".[")
		if i < 0 {
			break
		}
		above = above[:i]
	}
	text += why
	if allowed != "" {
		text += "; allowed: " + allowed
	}
	return fault.Config(code, "%s", quotable.Replace(text))
}
