//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// noticeBound is within how much time after the start a loss must be in the log.
const noticeBound = 60 * time.Second

// keeperRound is more than the keeper's period.
const keeperRound = 11 * time.Second

// TestDamagedDisk damages the files of one stream each while nothing runs, as a disk would, and goes on. The collector
// notices by itself, releases what it has to, has it fetched again, and nothing is missing.
func TestDamagedDisk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// stream is the one that is damaged; which of its blocks, of those that hold messages; and how.
		stream string
		damage func(t *testing.T, block string)
		// killed: the server was, and reads all blocks at its start. Else it believes its index.
		killed bool
		// small makes UNIQUE so small that alerts wait in RAW.
		small bool
		long  bool
	}{
		{name: "the end of UNIQUE is gone", stream: "UNIQUE", damage: truncate, killed: true},
		{name: "a byte of UNIQUE is flipped", stream: "UNIQUE", damage: flip, killed: true, long: true},
		{name: "a byte of UNIQUE is flipped that no start reads", stream: "UNIQUE", damage: flip, long: true},
		{name: "the end of RAW is gone", stream: "RAW", damage: truncate, killed: true, small: true, long: true},
		{name: "a byte of RAW is flipped that no start reads", stream: "RAW", damage: flip, small: true},
		{name: "the end of the claims is gone", stream: "KV_hashes", damage: truncate, killed: true, long: true},
		{name: "a byte of the claims is flipped that no start reads", stream: "KV_hashes", damage: flip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.long {
				long(t)
			}
			var edits []string
			if tt.small {
				edits = []string{"globals:", "bus:\n  limits: {unique: 2MB}\nglobals:"}
			}
			w := newWorld(t, simulator.Options{Backfill: 300}, edits...)
			p := w.run()
			w.arrived()
			w.confirmed()
			w.sim.Devo.Away()
			w.add(3000)
			eventually(t, "alerts to wait", func() bool {
				s := w.status()
				if tt.small {
					return *s.Events.Received >= 3300
				}
				return *s.Events.Unique >= 3300
			})
			if tt.killed {
				time.Sleep(keeperRound) // what it has not seen, and nobody claimed, it does not miss
				w.kill(p)
			} else {
				p.stop()
			}
			tt.damage(t, w.block(tt.stream))
			w.configure() // with room in UNIQUE again

			begun := time.Now()
			p = w.run()
			line := p.says("the bus has lost messages that it had acknowledged")
			noticed := time.Since(begun)
			t.Logf("noticed after %v: %s", noticed.Round(100*time.Millisecond), line)
			if noticed > noticeBound {
				t.Errorf("noticed after %v, want %v", noticed, noticeBound)
			}
			w.breaks++ // what was lost counts as possibly resent
			w.back()
			back := w.flows()
			w.settle(back)
			p.says("everything is read again after the loss")
			if gone := p.Log.Lines("are no longer in Azure"); len(gone) > 0 {
				t.Errorf("alerts that Azure has are called gone: %v", gone)
			}
			p.stop()
		})
	}
}

// block is the newest block file of a stream that holds something.
func (w *world) block(stream string) string {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "state", "bus", "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil {
		w.t.Fatal(err)
	}
	var numbers []int
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			w.t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(filepath.Base(f), "%d.blk", &n); err == nil && info.Size() > 4096 {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		w.t.Fatalf("no block of %s among %v", stream, files)
	}
	return filepath.Join(filepath.Dir(files[0]), fmt.Sprint(slices.Max(numbers), ".blk"))
}

// truncate cuts the last third off.
func truncate(t *testing.T, block string) {
	t.Helper()
	info, err := os.Stat(block)
	if err == nil {
		err = os.Truncate(block, info.Size()*2/3)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes a byte three quarters into the file.
func flip(t *testing.T, block string) {
	t.Helper()
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)*3/4] ^= 0xff
	if err := os.WriteFile(block, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
