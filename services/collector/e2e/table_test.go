//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// recoveryBound is how long after the end of a fault alerts must flow again. It is no measure of speed: the waits
// between tries are what it bounds.
var recoveryBound = slower(30 * time.Second)

const (
	// baseMemory and hashMemory are what a process may hold, with twice the unconfirmed bytes on top.
	baseMemory, hashMemory = 250 << 20, 350
)

// rows of the table that is printed in the end: one for each account.
var (
	rowsMu sync.Mutex
	rows   = map[string]account{}
)

func (w *world) enter(a account) {
	rowsMu.Lock()
	defer rowsMu.Unlock()
	rows[strings.TrimPrefix(w.t.Name(), "Test")] = a
}

func printTable(out io.Writer) {
	rowsMu.Lock()
	defer rowsMu.Unlock()
	if len(rows) == 0 {
		return
	}
	names := make([]string, 0, len(rows))
	var total account
	for name, a := range rows {
		names = append(names, name)
		total.created, total.arrived, total.missing, total.repeats = total.created+a.created, total.arrived+a.arrived, total.missing+a.missing, total.repeats+a.repeats
		total.resent, total.cut, total.breaks, total.kills = total.resent+a.resent, total.cut+a.cut, total.breaks+a.breaks, total.kills+a.kills
		total.recovered, total.peak = max(total.recovered, a.recovered), max(total.peak, a.peak)
	}
	slices.Sort(names)
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tcreated\tarrived whole\tmissing\tcut tails\tduplicates\tcounted as possibly resent\tkills\tflowed again after\tpeak MiB\t")
	line := func(name string, a account) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f s\t%.0f\t\n", name, a.created, a.arrived, a.missing, a.cut, a.repeats, a.resent, a.kills, a.recovered.Seconds(), float64(a.peak)/(1<<20))
	}
	for _, name := range names {
		line(name, rows[name])
	}
	line("all", total)
	_ = t.Flush() // the exit code does not depend on it
}

// peak is the largest resident size so far of a running process, in bytes.
func (p *program) peak() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// descriptors is how many files and sockets a running process has open.
func (p *program) descriptors() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

var (
	telemetryAddress = regexp.MustCompile(`telemetry=(\S+)`)
	goroutineTotal   = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

// goroutines is how many a running collector has.
func (p *program) goroutines() int {
	p.t.Helper()
	found := telemetryAddress.FindStringSubmatch(p.says("telemetry="))
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://" + found[1] + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	total := goroutineTotal.FindSubmatch(text)
	if total == nil {
		p.t.Fatalf("no number of goroutines in %.100s", text)
	}
	n, _ := strconv.Atoi(string(total[1]))
	return n
}

// leaks notes what a process that works has open; the returned function demands, when it works again, that it is
// not much more: connections come and go.
func (p *program) leaks() func() {
	p.t.Helper()
	const slack = 12
	descriptors, goroutines := p.descriptors(), p.goroutines()
	return func() {
		p.t.Helper()
		var d, g int
		for deadline := time.Now().Add(recoveryBound); ; time.Sleep(500 * time.Millisecond) {
			if d, g = p.descriptors(), p.goroutines(); d <= descriptors+slack && g <= goroutines+slack {
				p.t.Logf("descriptors %d, then %d; goroutines %d, then %d", descriptors, d, goroutines, g)
				return
			}
			if time.Now().After(deadline) {
				p.t.Errorf("%s leaks: descriptors %d, then %d; goroutines %d, then %d", p.Name, descriptors, d, goroutines, g)
				return
			}
		}
	}
}

// What a process has open when everything is delivered and confirmed, whatever it went through before.
const (
	restDescriptors = 60
	restGoroutines  = 180
)

// atRest demands that a process that has nothing to do keeps to these bounds, in time for connections to end.
func (p *program) atRest() {
	p.t.Helper()
	if len(p.Log.Lines("telemetry=")) == 0 {
		return // it has only just begun
	}
	var d, g int
	for deadline := time.Now().Add(recoveryBound); ; time.Sleep(500 * time.Millisecond) {
		if d, g = p.descriptors(), p.goroutines(); d <= restDescriptors && g <= restGoroutines {
			p.t.Logf("%s at rest: %d descriptors, %d goroutines", p.Name, d, g)
			return
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%s leaks: at rest it has %d descriptors (at most %d) and %d goroutines (at most %d)", p.Name, d, restDescriptors, g, restGoroutines)
			return
		}
	}
}

// memory demands that a process keeps to its bound with so many hashes.
func (p *program) memory(hashes int) int64 {
	p.t.Helper()
	peak, bound := p.peak(), int64(baseMemory+hashMemory*hashes+2*unconfirmedBound*2048)
	if peak > bound && !race {
		p.t.Errorf("%s has held %d MiB, more than %d", p.Name, peak>>20, bound>>20)
	}
	return peak
}
