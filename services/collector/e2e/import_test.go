//go:build e2e

package e2e

import (
	"crypto/md5" //nolint:gosec // names files
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"defenderiot/pkg/faultpoint"
	"defenderiot/services/simulator"
)

// pickled writes what Python's pickle.dumps(…, 2) writes for a dict of texts, a version and a list, but
// for the memo.
func pickled(start, last time.Time, ids ...string) []byte {
	text := func(s string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{'X'}, uint32(len(s))), s...)
	}
	b := []byte("\x80\x02}(")
	b = append(append(b, text("@persistence_version")...), 'K', 1)
	const layout = "2006-01-02T15:04:05.0000000Z"
	b = append(append(b, text("start_time_in_utc")...), text(start.UTC().Format(layout))...)
	b = append(append(b, text("last_event_time_in_utc")...), text(last.UTC().Format(layout))...)
	b = append(append(b, text("skip_token")...), 'N')
	b = append(append(b, text("last_ids")...), ']', '(')
	for _, id := range ids {
		b = append(b, text(id)...)
	}
	return append(b, "eu."...)
}

// Taking over from the known collector: what it has sent never arrives, what it has not arrives once,
// also when the one process is killed at every step of the import.
func TestImportOfTheKnownState(t *testing.T) {
	t.Parallel()
	// Several pages are old, so that every kill finds one that is not claimed yet.
	w := newWorld(t, simulator.Options{Backfill: 8000})
	rows := w.sim.Graph.Rows()
	at, ok := rows[len(rows)/2].Start()
	if !ok {
		t.Fatal("the row in the middle has no start")
	}
	w.sim.Graph.Add(w.sim.Generator.NextAt(at), w.sim.Generator.NextAt(at))
	var named string
	var atLast int
	for _, row := range w.sim.Graph.Rows() {
		if start, ok := row.Start(); ok && start.Equal(at) {
			named, atLast = row.ID(), atLast+1
		}
	}
	if atLast < 2 {
		t.Fatalf("%d rows start at %v, want several", atLast, at)
	}
	config, err := os.ReadFile(filepath.Join(w.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`start_time_in_utc: "([^"]+)"`).FindSubmatch(config)
	start, err := time.Parse(time.RFC3339, string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	name := md5.Sum([]byte("defender_for_iot;23453;iot_security_alerts;None")) //nolint:gosec // as above
	state := filepath.Join(w.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, hex.EncodeToString(name[:])), pickled(start, at, named), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, k := range []struct {
		point string
		n     int
	}{
		{faultpoint.StateRead, 1}, {faultpoint.StateImported, 1}, {faultpoint.PageReceived, 1}, {faultpoint.RawAcknowledged, 1},
		{faultpoint.KnownClaimed, 1}, {faultpoint.Claimed, 1}, {faultpoint.DedupAcknowledged, 1}, {faultpoint.PageReceived, 2}, {faultpoint.KnownClaimed, 2},
	} {
		w.killAt(k.point, k.n)
	}
	// Nothing old may come by the overlap, the lookback or a restart either.
	for range 2 {
		p := w.run()
		p.says("The data is up to date!")
		w.add(5)
		w.importedOnce(at, named)
		p.stop()
	}
}

// importedOnce waits until everything that starts at or after at, but for the one that is named, has
// arrived, and demands that it did so once and that nothing else has.
func (w *world) importedOnce(at time.Time, named string) {
	w.t.Helper()
	old := func(row simulator.Row) bool {
		start, ok := row.Start()
		return ok && start.Before(at) || row.ID() == named
	}
	want := 0
	for _, row := range w.sim.Graph.Rows() {
		if !old(row) {
			want++
		}
	}
	eventually(w.t, fmt.Sprintf("%d alerts", want), func() bool { return w.unique() >= int64(want) })
	w.confirmed()
	for _, row := range w.sim.Graph.Rows() {
		n := w.sim.Devo.Count(row.ID())
		if old(row) && n != 0 || !old(row) && n != 1 {
			start, _ := row.Start()
			w.t.Errorf("%s of %v arrived %d times; the state ends at %v", row.ID(), start, n, at)
		}
	}
}
