//go:build e2e

package e2e

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// disk is a small file system of its own.
type disk struct {
	t   *testing.T
	dir string
}

// disk mounts one on a new folder of the world's; without the right to, the test is skipped.
func (w *world) disk(folder, size string) *disk {
	w.t.Helper()
	d := &disk{w.t, filepath.Join(w.dir, folder)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0700,size="+size, "collector-e2e", d.dir).CombinedOutput(); err != nil {
		w.t.Skipf("NOT RUN: this needs a file system of its own, and mounting one is not allowed here (root is needed): %v: %s", err, out)
	}
	// Programs that are started later end before this.
	w.t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", d.dir).CombinedOutput(); err != nil {
			w.t.Errorf("umount: %v: %s", err, out)
		}
	})
	return d
}

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// fill leaves so many bytes, as far as others do not take them meanwhile.
func (d *disk) fill(leave int64) {
	d.t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	n, err := io.Copy(f, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("%d bytes written: %v", n, err)
	}
	if err := f.Truncate(max(0, n-leave)); err != nil {
		d.t.Fatal(err)
	}
}

// free makes room again.
func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// freeze fills the disk until a stream has stopped, which p says by a line with these texts. What is left takes a batch
// that is staged, but not its copy in the stream; others write meanwhile, so that can take more than one try.
func (d *disk) freeze(p *program, texts ...string) {
	d.t.Helper()
	eventually(d.t, "a stream to stop", func() bool {
		d.fill(64 << 10)
		for end := time.Now().Add(outage); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if len(p.Log.Lines(texts...)) > 0 {
				return true
			}
		}
		return false
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// saysAgain waits for the n-th line of the log that holds all of the texts.
func (p *program) saysAgain(n int, texts ...string) {
	p.t.Helper()
	eventually(p.t, p.Name+" to log once more "+texts[0], func() bool { return len(p.Log.Lines(texts...)) >= n })
}

// outage is how long a fault of the bus lasts here.
const outage = 3 * time.Second

// The disk under the embedded server is full, without a byte left and with a little, so that a write ends in the middle
// of a batch and the stream stops. When there is room again the server is restarted in the process, where it has to be.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 2000})
	d := w.disk("state", "96m")
	p := w.run()
	end := w.feed(50)
	w.flows()
	d.fill(0)
	p.says("ERROR", "storing on the embedded bus failed", "make room on the disk")
	time.Sleep(outage)
	d.free()
	w.breaks++
	slowest := w.flows()
	d.freeze(p, "ERROR", "storing on the embedded bus failed", "stream 'COLLECTOR > ", "write error", "no space left on device")
	time.Sleep(outage)
	d.free()
	w.breaks++
	slowest = max(slowest, w.flows())
	p.says("the embedded server is restarted")
	p.says("storing on the embedded bus works again")
	end()
	w.restarted(p, slowest)
}

// restarted closes the account of a process whose embedded server was restarted, and demands few lines.
func (w *world) restarted(p *program, slowest time.Duration) {
	w.t.Helper()
	w.healthy(p, slowest)
	if lines := p.Log.Lines("ERROR"); len(lines) > 40 {
		w.t.Errorf("%d errors in the log, among them %v", len(lines), lines[:40])
	}
}
