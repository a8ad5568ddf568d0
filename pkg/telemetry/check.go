package telemetry

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Ready adds a check to /readyz, which answers 200 if every check returns nil and 503 otherwise, with one
// line `name: ok` or `name: error: text` for each. It says whether the program can do its work now: a
// connection that is down belongs here.
//
// A check is called on every request, by several at once: it reads what the program knows already, returns
// at once and is safe for concurrent use. A name that is there is replaced; a nil check removes it.
func (t *Telemetry) Ready(name string, check func() error) { t.ready.set(name, check) }

// Alive adds a check to /healthz, with the rules of [Telemetry.Ready]. An orchestrator restarts what fails
// here, so only what a restart mends belongs here: a stuck loop, never an absent peer.
func (t *Telemetry) Alive(name string, check func() error) { t.alive.set(name, check) }

type namedCheck struct {
	name  string
	check func() error
}

// checks is an ordered list of checks; the zero value is empty.
type checks struct {
	mu   sync.Mutex
	list []namedCheck
}

// set copies the list, so that serve may walk the one it took without the lock: a check may then
// register another one.
func (c *checks) set(name string, check func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]namedCheck, 0, len(c.list)+1)
	replaced := false
	for _, old := range c.list {
		switch {
		case old.name != name:
			list = append(list, old)
		case check != nil:
			list = append(list, namedCheck{name, check})
			replaced = true
		}
	}
	if check != nil && !replaced {
		list = append(list, namedCheck{name, check})
	}
	c.list = list
}

func (c *checks) serve(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	list := c.list
	c.mu.Unlock()
	status := http.StatusOK
	var body []byte
	for _, n := range list {
		body = appendEscaped(body, n.name)
		if err := n.run(); err != nil {
			status = http.StatusServiceUnavailable
			body = append(body, ": error: "...)
			body = appendEscaped(body, strings.TrimSpace(err.Error()))
		} else {
			body = append(body, ": ok"...)
		}
		body = append(body, '\n')
	}
	if len(list) == 0 {
		body = append(body, "ok\n"...)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A caller that went away needs no answer.
	_, _ = w.Write(body)
}

// NotReady are the parts that cannot do their work now, each with the reason: the failing lines of /readyz.
func (t *Telemetry) NotReady() map[string]string {
	t.ready.mu.Lock()
	list := t.ready.list
	t.ready.mu.Unlock()
	failing := map[string]string{}
	for _, n := range list {
		if err := n.run(); err != nil {
			failing[n.name] = err.Error()
		}
	}
	return failing
}

var readyMetric = prometheus.NewDesc("collector_ready", "1 if this part of the program can do its work, else 0: the lines of /readyz.", []string{"part"}, nil)

// Describe and Collect show the checks on /metrics.
func (c *checks) Describe(to chan<- *prometheus.Desc) { to <- readyMetric }

func (c *checks) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	list := c.list
	c.mu.Unlock()
	for _, n := range list {
		ready := 1.0
		if n.run() != nil {
			ready = 0
		}
		to <- prometheus.MustNewConstMetric(readyMetric, prometheus.GaugeValue, ready, n.name)
	}
}

// run makes an error of a panic: a broken check is a failed one, with its reason in the answer.
func (n namedCheck) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the check panicked: %v", r)
		}
	}()
	return n.check()
}
