//go:build e2e

package e2e

import (
	"testing"

	"defenderiot/services/simulator"
)

// By the settings that people have, everything arrives in gzip members, once and as it must look.
func TestCompressed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 2000, KeepFrames: true},
		"globals:", "globals:\n  devo_sender_compression_buffer_in_bytes: 10000",
		"type: SSL", "type: SSL\n      threshold_for_using_gzip_in_transport_layer: -1\n      compression_level: 9")
	p := w.run()
	w.arrived()
	w.add(10)
	w.arrived()
	w.onceAndKnown()
	w.frames()
	stats := w.sim.Devo.Stats()
	if least := stats.Bytes / 10000; stats.Members < least {
		t.Errorf("%d members for %d bytes, want at least %d", stats.Members, stats.Bytes, least)
	}
	w.settle(0)
	p.stop()
}
