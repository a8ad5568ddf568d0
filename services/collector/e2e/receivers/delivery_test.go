//go:build receivers && linux

package receivers

import (
	"os"
	"syscall"
	"testing"
)

const alerts = 20_000

// outputTypes are the kinds of outputs that speak TLS.
var outputTypes = []string{"devo_platform", "relay", "relay"}

// Every alert arrives once, byte for byte.
func TestDelivery(t *testing.T) {
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k, outputTypes[i], alerts)
			w.receiver.run()
			p := w.collect()
			s := w.confirmed()
			w.stop(p, 0)
			w.stop(w.receiver.Program, 0)
			if a := w.settle(s, 0); a.repeated != 0 || a.resent != 0 {
				t.Errorf("%d alerts arrived again, %d are counted as possibly resent, although nothing broke", a.repeated, a.resent)
			}
		})
	}
}

// The same with the receiver restarted twice in mid-stream: by a kill where the receiver writes what it takes
// before it takes more, and by its administrator.
func TestReceiverRestarted(t *testing.T) {
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k, outputTypes[i], alerts)
			w.receiver.run()
			p := w.collect()
			first := os.Signal(syscall.SIGTERM)
			if k.folder == "rsyslog" {
				first = syscall.SIGKILL
			}
			for _, sign := range []os.Signal{first, syscall.SIGTERM} {
				eventually(t, "a third of the alerts to arrive", func() bool { return w.receiver.lines() >= alerts/3 })
				w.receiver.Signal(sign)
				w.receiver.Exit(patience)
				if n := w.receiver.lines(); n >= alerts {
					t.Fatalf("%d lines had arrived at the restart: it was not in mid-stream", n)
				}
				w.receiver.run()
			}
			s := w.confirmed()
			w.stop(p, 0)
			w.stop(w.receiver.Program, 0)
			w.settle(s, 2)
		})
	}
}
