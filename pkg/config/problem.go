package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"defenderiot/pkg/fault"
)

// quotable makes a reason what the known form needs, which puts it between double quotes, on one line.
var quotable = strings.NewReplacer("\"", "'", "\n", " ", "\r", " ")

// The codes of configuration errors, as people know them.
const (
	codeStructure       = 0 // the structure, a type, a range, an unknown key
	codeJobFolder       = 2 // the job file of a Collector Server is a directory
	codeJobMissing      = 3 // or does not exist
	codeCollectorFolder = 4 // the same of its collector file
	codeCollectorAbsent = 5
	codeMissing         = 6  // a file or required data is missing
	codeYAML            = 7  // not YAML
	codeJSON            = 9  // not JSON
	codeServerYAML      = 10 // a file of a Collector Server is not YAML
	codeServerJSON      = 12 // or not JSON
	codeName            = 13 // a name is bad
	codeOutput          = 14 // the type of an output is unknown
)

// Warning is something in the file that does not stop the start. The caller logs it, once.
type Warning struct {
	// File, Line and Column are where; Line and Column count from 1.
	File         string
	Line, Column int
	// Key is the path of the key, such as globals.foo.
	Key string
	// Text is the line to log at level warning. It holds no secret.
	Text string
	// Hint is where it stands and what was perhaps meant.
	Hint string
}

// String is the text and the hint.
func (w Warning) String() string {
	if w.Hint == "" {
		return w.Text
	}
	return w.Text + " (" + w.Hint + ")"
}

// problem is one error of the file, before it is put into words.
type problem struct {
	line, column int
	kind         string // a fault type; empty: fault.TypeConfiguration
	known        bool   // text is one that people know, with its double quotes
	code         int
	text         string
	hint         string
}

// report collects what is to be said about one configuration: a file, or two whose lines are numbered
// through.
type report struct {
	file     string
	second   string // empty for one file
	base     int    // lines of the second file count from here
	problems []problem
	warnings []Warning
}

// place is the file and the line in it of a line that is numbered through.
func (r *report) place(line int) (string, int) {
	if r.second != "" && line > r.base {
		return r.second, line - r.base
	}
	return r.file, line
}

// named is the file, or both.
func (r *report) named() string {
	if r.second != "" {
		return r.file + " and " + r.second
	}
	return r.file
}

// at is the position as people write it, file:line:column.
func (r *report) at(line, column int) string {
	file, line := r.place(line)
	return fmt.Sprintf("%s:%d:%d", file, line, column)
}

// fail notes an error at v.
func (r *report) fail(v *value, code int, format string, args ...any) {
	v.bad = true
	r.failAt(v.where.line, v.where.column, code, v.path, format, args...)
}

// failAt notes an error at a position; path may be empty.
func (r *report) failAt(line, column, code int, path, format string, args ...any) {
	text := r.at(line, column) + ": "
	if path != "" {
		text += path + ": "
	}
	r.problems = append(r.problems, problem{line: line, column: column, code: code, text: text + fmt.Sprintf(format, args...)})
}

// failStart notes an error of start_time_in_utc in the words that people know; the place is in the hint.
func (r *report) failStart(v *value, code int, must, allowed string) {
	v.bad = true
	r.problems = append(r.problems, problem{
		line: v.where.line, column: v.where.column, kind: fault.TypeInitVariables, code: code,
		text: fmt.Sprintf("Invalid start_time_in_utc: %s. %s", v.plainShow(), must),
		hint: fmt.Sprintf("%s: %s; allowed: %s", r.at(v.where.line, v.where.column), v.path, allowed),
	})
}

// warn notes a warning about key, whose text is complete.
func (r *report) warn(line, column int, key, hint, text string) {
	where := r.at(line, column)
	if hint != "" {
		where += "; " + hint
	}
	file, line := r.place(line)
	r.warnings = append(r.warnings, Warning{File: file, Line: line, Column: column, Key: key, Text: text, Hint: where})
}

// failed reports whether there is any error.
func (r *report) failed() bool { return len(r.problems) > 0 }

// onlyStart reports whether nothing but start times is wrong.
func (r *report) onlyStart() bool {
	return !slices.ContainsFunc(r.problems, func(p problem) bool { return p.kind != fault.TypeInitVariables })
}

// err is all errors in the order of the file, one line each, or nil. Its tree holds one *fault.Error
// for each.
func (r *report) err() error {
	slices.SortStableFunc(r.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	seen := make(map[string]bool)
	var all []error
	for _, p := range r.problems {
		e := &fault.Error{Type: cmp.Or(p.kind, fault.TypeConfiguration), Code: p.code, Reason: p.text, Hint: p.hint}
		if !p.known {
			e.Reason = quotable.Replace(e.Reason)
		}
		if line := e.Error(); !seen[line] {
			seen[line] = true
			all = append(all, e)
		}
	}
	return errors.Join(all...)
}
