//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// checkHealth runs the health check of the compose files against the world's nats-server, as an engine does: again and
// again, until ctx ends. It gets what the check says.
func (w *world) checkHealth(ctx context.Context, nats *program, monitoring int, folder string) (said string) {
	// A machine has an nc or not, and of several kinds.
	bin := filepath.Join(w.dir, "bin")
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "nc"), "../../../deploy/test/compose/nc.go").CombinedOutput(); err != nil {
		w.t.Errorf("build nc: %v: %s", err, out)
		return ""
	}
	for ctx.Err() == nil && nats.Running() {
		check := exec.CommandContext(ctx, "sh", "../../../deploy/nats/health.sh", folder, fmt.Sprint(nats.Cmd.Process.Pid), fmt.Sprint(monitoring))
		check.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, _ := check.CombinedOutput()
		said += string(out)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return said
}

// The disk under a nats-server of its own is full. The programs say what has to be done; the health check of the compose
// files leaves the server alone while there is no room and ends it when there is, and the one who restarts it is played
// by this test. Now and then the keeper purges on the full disk, and the server waits for itself for ever: then it takes
// the check's second signal.
func TestFullDiskOfAServer(t *testing.T) {
	t.Parallel()
	port, monitoring := freePort(t), freePort(t)
	bus := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: %s\nglobals:", port, busUser, busPassword)
	w := newWorld(t, simulator.Options{Backfill: 500}, "globals:", bus)
	d := w.disk("nats", "96m")
	server := w.server(port, fmt.Sprintf("http: \"127.0.0.1:%d\"", monitoring))
	nats := server()
	if p := w.start(collectorProgram, "provision"); p.Exit(patience) != 0 {
		t.Fatalf("collector provision: exit %d, %s", p.Code(), p.Log.String())
	}
	services := []*program{w.start(fetcherProgram), w.start(dedupProgram), w.start(senderProgram)}
	end := w.feed(50)
	w.flows()
	d.freeze(nats, "JetStream stream 'COLLECTOR > ", "critical write error", "no space left on device")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	checked := make(chan string, 1)
	go func() { checked <- w.checkHealth(ctx, nats, monitoring, d.dir) }()
	services[0].says("ERROR", "does not store", "which is tried again", "critical write error", "make room and restart it")
	if !nats.Running() {
		t.Error("the server was ended while there was no room")
	}
	d.free()
	w.breaks++
	begun := time.Now()
	nats.Exit(patience)
	if said := <-checked; !strings.Contains(said, "takes writes: the server is ended by SIG") {
		t.Errorf("the health check said %s", said)
	}
	server()
	w.flows()
	recovered := time.Since(begun)
	end()
	w.settle(recovered)
	for _, p := range services {
		p.stop()
	}
}
