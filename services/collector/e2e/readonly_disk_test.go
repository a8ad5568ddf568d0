//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// device makes a disk of a file, with ext4 on it: there each file can be made read-only under a program that has it open,
// and the whole of it as after an error of the device.
func (w *world) device(folder, size string) *disk {
	w.t.Helper()
	d := &disk{w.t, filepath.Join(w.dir, folder)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.command("truncate", "-s", size, d.image())
	w.command("mkfs.ext4", "-q", "-F", d.image())
	if out, err := exec.Command("mount", "-o", "loop", d.image(), d.dir).CombinedOutput(); err != nil {
		w.t.Skipf("NOT RUN: this needs a file system of its own, and mounting one is not allowed here (root and a loop device are needed): %v: %s", err, out)
	}
	w.t.Cleanup(func() { _ = exec.Command("umount", "-l", d.dir).Run() })
	return d
}

func (d *disk) image() string { return d.dir + ".img" }

// command runs one of the system's own.
func (w *world) command(name string, args ...string) {
	w.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		w.t.Skipf("NOT RUN: there is no %s", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// No file of the bus takes a write any more, not even those that are open, and then all do again. The server is restarted
// in the process. (The mount itself cannot be made read-only under a server: the system refuses that while a file is open
// for writing.)
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1000})
	d := w.device("state", "128M")
	p := w.run()
	end := w.feed(50)
	w.flows()
	w.t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-i", d.dir).Run() })
	if out, err := exec.Command("mount", "-o", "remount,ro", d.dir).CombinedOutput(); err == nil {
		t.Errorf("it can be made read-only after all: %s", out)
	}
	w.command("chattr", "-R", "+i", filepath.Join(d.dir, "bus"))
	p.says("ERROR", "storing on the embedded bus failed", "operation not permitted", "make it writable again")
	time.Sleep(outage)
	w.command("chattr", "-R", "-i", filepath.Join(d.dir, "bus"))
	w.breaks++
	recovered := w.flows()
	p.says("the embedded server is restarted")
	p.says("storing on the embedded bus works again")
	end()
	w.restarted(p, recovered)
}

// The kernel makes a disk read-only after an error of the device, and only an unmount mends it. Nothing is lost between
// what was acknowledged and the end, and a new start goes on.
func TestReadOnlyDiskAfterAnError(t *testing.T) {
	long(t)
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 1000})
	d := w.device("state", "128M")
	p := w.run()
	end := w.feed(50)
	w.flows()
	_ = exec.Command("mount", "-o", "remount,abort", d.dir).Run() // it says that the mount is read-only now
	p.says("ERROR", "storing on the embedded bus failed", "read-only file system", "if that takes an unmount, stop the collector before")
	p.terminate()
	p.Exit(patience)
	w.breaks++
	w.command("umount", d.dir)
	_ = exec.Command("e2fsck", "-p", "-f", d.image()).Run() // 1: it has mended something
	w.command("mount", "-o", "loop", d.image(), d.dir)
	resumed := w.resumes()
	p = w.run()
	recovered := resumed()
	end()
	w.restarted(p, recovered)
}
