//go:build receivers && linux

package receivers

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// account is what a test has to show for itself.
type account struct {
	created, arrived, missing, repeated int
	cut                                 int    // beginnings of lines, from connections or receivers that broke
	wrong                               int    // lines that should not be
	resent                              uint64 // counted by the collector as possibly resent
	breaks                              int
}

func (a account) String() string {
	return fmt.Sprintf("created %d, arrived %d, missing %d, repeated %d, counted as possibly resent %d (at most %d for %d restarts), beginnings of lines %d, wrong lines %d",
		a.created, a.arrived, a.missing, a.repeated, a.resent, a.breaks*unconfirmedBound, a.breaks, a.cut, a.wrong)
}

// settle reads the receiver's files, after it has stopped, and judges them.
func (w *world) settle(s status, breaks int) account {
	w.t.Helper()
	a := account{created: len(w.made), resent: s.Outputs[outputName].Resent, breaks: breaks}
	arrived := map[string]string{} // frame by id
	var odd []string
	host, err := os.Hostname()
	if err != nil {
		w.t.Fatal(err)
	}
	for n := 1; n <= w.receiver.runs; n++ {
		data, err := os.ReadFile(w.receiver.file(n))
		if err != nil && !os.IsNotExist(err) {
			w.t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			text, whole := strings.CutSuffix(string(line), "\n")
			id, problem := w.judge(text, host)
			switch before, again := arrived[id]; {
			case problem != "" || !whole:
				odd = append(odd, text)
			case !again:
				arrived[id] = text
			default:
				a.repeated++
				if before != text {
					a.wrong++
					w.t.Errorf("a repeat differs from the first:\n%.300s\n%.300s", before, text)
				}
			}
		}
	}
	for _, text := range odd {
		if breaks > 0 && beginning(text, arrived) {
			a.cut++
			continue
		}
		if a.wrong++; a.wrong < 4 {
			_, problem := w.judge(text, host)
			w.t.Errorf("%s: %.600q", problem, text)
		}
	}
	a.arrived = len(arrived)
	for id := range w.made {
		if _, ok := arrived[id]; !ok {
			if a.missing++; a.missing < 4 {
				w.t.Logf("missing: %s", id)
			}
		}
	}
	w.t.Logf("%s: %v, proof %s", w.receiver.kind.name, a, s.Outputs[outputName].Proof)
	w.verdict(a, s)
	return a
}

func (w *world) verdict(a account, s status) {
	w.t.Helper()
	if a.arrived != a.created || a.missing > 0 || a.wrong > 0 {
		w.t.Errorf("of %d alerts %d arrived, %d are missing, %d lines are wrong", a.created, a.arrived, a.missing, a.wrong)
	}
	if uint64(a.repeated) > a.resent {
		w.t.Errorf("%d alerts arrived again and only %d are counted as possibly resent", a.repeated, a.resent)
	}
	if a.resent > uint64(a.breaks)*unconfirmedBound {
		w.t.Errorf("%d alerts are counted as possibly resent, more than %d for each of %d restarts", a.resent, unconfirmedBound, a.breaks)
	}
	if s.DeadLetters != 0 {
		w.t.Errorf("%d dead letters", s.DeadLetters)
	}
	if proof := s.Outputs[outputName].Proof; proof != "half-close" {
		w.t.Errorf("proof is %q, want half-close", proof)
	}
	// Each broken connection can leave one.
	if most := a.breaks * 8; a.cut > most {
		w.t.Errorf("%d beginnings of lines, more than %d", a.cut, most)
	}
}

// beginning reports whether a text is how a frame begins that has also arrived whole.
func beginning(text string, arrived map[string]string) bool {
	for _, frame := range arrived {
		if strings.HasPrefix(frame, text) {
			return true
		}
	}
	return false
}

var frameForm = regexp.MustCompile(`(?s)^<14>(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (\S+) (\S+): (\{.*\})$`)

// judge compares a line with the row that Azure holds, byte for byte, and returns the alert's id.
func (w *world) judge(line, host string) (id, problem string) {
	parts := frameForm.FindStringSubmatch(line)
	if parts == nil {
		return "", "no frame"
	}
	at, err := time.Parse("2006-01-02 15:04:05.000", parts[1])
	if err != nil {
		return "", err.Error()
	}
	if parts[2] != host || parts[3] != table {
		return "", fmt.Sprintf("host %q and table %q, want %q and %q", parts[2], parts[3], host, table)
	}
	id = identity([]byte(parts[4]))
	body, ok := w.made[id]
	if !ok {
		return "", "an alert that was never made"
	}
	// The date is the pull's start, which is also the pulling id.
	if want := body + `,"@devo_environment":"demo","@devo_pulling_id":"` + strconv.FormatInt(at.UnixMilli(), 10) + `"}`; parts[4] != want {
		i := 0
		for i < min(len(want), len(parts[4])) && want[i] == parts[4][i] {
			i++
		}
		return "", fmt.Sprintf("differs from what Azure holds at byte %d, want %.80q", i, want[i:])
	}
	return id, ""
}
