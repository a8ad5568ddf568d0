//go:build e2e

package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"defenderiot/services/simulator"
)

// TestRestoredBackup does what docs/operating.md says under Backup: stop, copy, go on; the folder is lost; the older
// copy is put back. Nothing is missing then. What was delivered between the copy and the loss arrives once more, since
// the copy does not know of it, and nothing else does.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1000})
	folder, backup := filepath.Join(w.dir, "state", "bus"), filepath.Join(w.dir, "backup")
	end := w.feed(50)
	p := w.run()
	w.flows()
	p.stop()
	w.copy(folder, backup)
	before := maps.Clone(w.sim.Devo.Counts())

	p = w.run()
	w.flows()
	end()
	w.arrived()
	between := maps.Clone(w.sim.Devo.Counts())
	w.kill(p)
	if err := os.RemoveAll(filepath.Join(w.dir, "state")); err != nil {
		t.Fatal(err)
	}
	w.add(25)

	if err := os.Mkdir(filepath.Join(w.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.copy(backup, folder)
	p = w.run()
	w.arrived()
	w.confirmed()
	p.says("the state folder is a copy")
	p.says("everything is read again after the restore")
	p.stop()

	if n := len(w.sim.Missing()); n > 0 {
		t.Errorf("%d alerts are missing", n)
	}
	again, sent := 0, 0
	for id := range between {
		if before[id] == 0 {
			sent++
		}
	}
	for id, n := range w.sim.Devo.Counts() {
		want := 1
		if before[id] == 0 && between[id] > 0 {
			want = 2
		}
		if n != want {
			t.Errorf("%s arrived %d times, want %d", id, n, want)
		}
		again += n - 1
	}
	t.Logf("delivered before the copy %d, between copy and loss %d, arrived once more %d, missing %d", len(before), sent, again, len(w.sim.Missing()))
	if sent == 0 || again != sent {
		t.Errorf("%d arrived once more, want the %d delivered between copy and loss", again, sent)
	}
}

// copy copies a folder with the command that the documentation names.
func (w *world) copy(from, to string) {
	w.t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		w.t.Fatalf("cp -a: %v: %s", err, out)
	}
}
