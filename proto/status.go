package proto

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// StatusVersion is the version of [ProcessStatus].
const StatusVersion = 1

// Bounds of a [ProcessStatus]; [ProcessStatus.Encode] keeps them.
const (
	MaxStatusFailures = 16
	MaxStatusFigures  = 256
	maxStatusText     = 512
)

// ProcessStatus is what one running process tells of what only it knows, JSON in the status bucket: there for whoever
// looks, never read by a service, and nothing depends on it. The process writes its own record every few seconds and
// removes it at an orderly stop; the bucket forgets one that is not written again.
type ProcessStatus struct {
	Version  int       `json:"version"`
	Program  string    `json:"program"`
	Instance string    `json:"instance"`
	Build    string    `json:"build"`
	Started  time.Time `json:"started"`
	// NotReady are the parts that cannot do their work, with the reason.
	NotReady map[string]string `json:"not_ready,omitempty"`
	// Failures are what fails now, errors first.
	Failures []StatusFailure `json:"failures,omitempty"`
	Figures  []StatusFigure  `json:"figures"`
}

// StatusFailure is something that fails now.
type StatusFailure struct {
	What string `json:"what"`
	// Type and Code are those of the error as the log has it; Type is empty for one without a name.
	Type    string    `json:"type,omitempty"`
	Code    int       `json:"code,omitempty"`
	Text    string    `json:"error"`
	Hint    string    `json:"hint,omitempty"`
	Warning bool      `json:"warning,omitempty"`
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	Count   int       `json:"count"`
}

// StatusFigure is one figure of the process's metrics.
type StatusFigure struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"`
	// PerSecond is a counter's mean growth over the last minute, or since the process started.
	PerSecond float64 `json:"per_second,omitempty"`
}

// Encode returns the record as JSON, at most some 40 KiB: texts, failures and figures too many are cut off.
func (s *ProcessStatus) Encode() ([]byte, error) {
	c := *s
	c.NotReady = make(map[string]string, len(s.NotReady))
	for part, text := range s.NotReady {
		c.NotReady[part] = cut(text)
	}
	c.Failures = append([]StatusFailure(nil), s.Failures[:min(len(s.Failures), MaxStatusFailures)]...)
	for i := range c.Failures {
		f := &c.Failures[i]
		f.What, f.Text, f.Hint = cut(f.What), cut(f.Text), cut(f.Hint)
	}
	// Names with few series first: those of many inputs or outputs cut off only each other, none of the process itself.
	series := map[string]int{}
	for _, f := range s.Figures {
		series[f.Name]++
	}
	c.Figures = slices.Clone(s.Figures)
	slices.SortStableFunc(c.Figures, func(a, b StatusFigure) int { return series[a.Name] - series[b.Name] })
	c.Figures = c.Figures[:min(len(c.Figures), MaxStatusFigures)]
	return json.Marshal(c)
}

// cut makes a text fit; half a character at the cut becomes a mark in the JSON.
func cut(text string) string {
	if len(text) <= maxStatusText {
		return text
	}
	return text[:maxStatusText] + "…"
}

// DecodeStatus reads a record; errors wrap [ErrMalformed] or [ErrNewerMajor].
func DecodeStatus(data []byte) (*ProcessStatus, error) {
	s := &ProcessStatus{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("status record: %w: %w", ErrMalformed, err)
	}
	switch {
	case s.Version > StatusVersion:
		return nil, fmt.Errorf("status record: %w: version %d", ErrNewerMajor, s.Version)
	case s.Version < 1 || s.Program == "" || s.Instance == "":
		return nil, fmt.Errorf("status record: %w: version, program or instance is missing", ErrMalformed)
	}
	return s, nil
}

// StatusPrefix is what the keys of a program's records begin with, for the permission to write them.
func StatusPrefix(program string) string { return Token(program) + "." }

// StatusKey is the key of one process's record in the status bucket.
func StatusKey(program, instance string) string { return StatusPrefix(program) + Token(instance) }
