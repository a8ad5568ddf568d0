//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

const (
	busUser     = "collector"
	busPassword = "e2e-bus-password"
)

// freePort is a port that nobody listens on at this moment.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// server writes the configuration of a nats-server that is as durable as the embedded one, and returns a
// function that starts it; more are lines of that configuration.
func (w *world) server(port int, more ...string) (run func() *program) {
	w.t.Helper()
	path := filepath.Join(w.dir, "nats.conf")
	text := fmt.Sprintf(`listen: "127.0.0.1:%d"
max_payload: 32MB
jetstream {
  store_dir: %q
  sync_interval: always
  max_file_store: 64TB
}
accounts {
  COLLECTOR {
    jetstream: enabled
    users: [{user: %q, password: %q}]
  }
}
%s
`, port, filepath.Join(w.dir, "nats"), busUser, busPassword, strings.Join(more, "\n"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return func() *program {
		w.t.Helper()
		p := w.with(nil, natsProgram, "-c", path)
		p.says("Server is ready")
		return p
	}
}

// The services as separate programs on a nats-server: started in the wrong order they wait, and any of
// them may die in mid-stream, the server too.
func TestSeparatePrograms(t *testing.T) {
	t.Parallel()
	port, metrics := freePort(t), [2]int{freePort(t), freePort(t)}
	bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
	w := newWorld(t, simulator.Options{Backfill: 3000, KeepFrames: true}, "globals:", bus, "internal_events: false", "internal_events: true")
	w.configureSenders(metrics)
	services := map[string]*program{}
	run := func(name string) {
		switch name {
		case fetcherProgram, dedupProgram:
			services[name] = w.start(name)
		default:
			services[name] = w.with(nil, senderProgram, "--config", name+".yaml")
		}
	}
	names := []string{fetcherProgram, dedupProgram, "sender-1", "sender-2"}
	for _, name := range names {
		run(name)
	}
	for _, name := range names {
		services[name].says("waiting for the bus", "the connection")
	}
	server := w.server(port)
	nats := server()
	for _, name := range names {
		services[name].says("waiting for the bus", "run `collector provision`")
		if n := len(services[name].Log.Lines("waiting for the bus")); n > 4 {
			t.Errorf("%s said %d times that it waits", name, n)
		}
	}
	if p := w.start(collectorProgram, "provision"); p.Exit(patience) != 0 || !strings.Contains(p.Stdout.String(), "provisioned") {
		t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
	}
	end := w.feed(30)
	w.flows()
	eventually(t, "both senders to deliver", func() bool { return confirmedBy(t, metrics[0]) > 0 && confirmedBy(t, metrics[1]) > 0 })

	for _, name := range []string{fetcherProgram, dedupProgram, senderProgram} {
		w.atDevo("devo.collectors.out.local.info", name+" runs ")
	}

	var slowest time.Duration
	for _, name := range names {
		w.kill(services[name])
		if strings.HasPrefix(name, senderProgram) {
			w.breaks++
			w.flows() // the other one goes on
		}
		run(name)
		slowest = max(slowest, w.flows())
	}
	for _, fail := range []func(*program){(*program).stopServer, w.kill} {
		fail(nats)
		w.breaks++
		nats = server()
		slowest = max(slowest, w.flows())
	}
	end()
	w.settle(slowest)
	for _, name := range names {
		services[name].stop()
	}
}

// configureSenders gives each sender a configuration with an address of its own for its metrics.
func (w *world) configureSenders(metrics [2]int) {
	w.t.Helper()
	for i, name := range []string{"sender-1.yaml", "sender-2.yaml"} {
		w.listening(name, metrics[i])
	}
}

// listening writes the configuration once more under another name, with an address for the metrics.
func (w *world) listening(name string, port int) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "config.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	own := strings.Replace(string(text), "listen: 127.0.0.1:0", fmt.Sprintf("listen: 127.0.0.1:%d", port), 1)
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(own), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// confirmedBy reads from a sender's metrics how many alerts it has confirmed; 0 while it does not answer.
func confirmedBy(t *testing.T, port int) float64 {
	t.Helper()
	return counter(t, port, "collector_sender_confirmed_total")
}

// counter is the sum over one of a program's metrics; 0 while it does not answer.
func counter(t *testing.T, port int, name string) (sum float64) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0
	}
	for _, found := range regexp.MustCompile(`(?m)^`+name+`(?:\{.*\})? ([0-9.e+]+)$`).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// stopServer stops a nats-server in order; its exit code is its own business.
func (p *program) stopServer() {
	p.t.Helper()
	p.terminate()
	p.Exit(patience)
}
