package child

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// Transcript collects what a program prints. It is safe for concurrent use.
type Transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *Transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *Transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Lines returns the lines that hold all of the texts.
func (o *Transcript) Lines(texts ...string) []string {
	var found []string
	for line := range strings.Lines(o.String()) {
		if All(line, texts) {
			found = append(found, line)
		}
	}
	return found
}

// All reports whether text holds all of the texts.
func All(text string, texts []string) bool {
	for _, t := range texts {
		if !strings.Contains(text, t) {
			return false
		}
	}
	return true
}

// routine are the lines of every pull, which would hide the others.
var routine = regexp.MustCompile(`(?m)^.* INFO .*(Pull Started|Fetching all|No skip_token|Statistics for|The data is up to date|Data collection completed|Elapsed time).*\n`)

// tail is the end of a long log, without what is said at every pull.
func tail(s string) string {
	const most = 12 << 10
	s = routine.ReplaceAllString(s, "")
	if len(s) > most {
		return "[…]" + s[len(s)-most:]
	}
	return s
}
