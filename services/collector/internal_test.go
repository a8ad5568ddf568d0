package collector_test

import (
	"bytes"
	"strings"
	"testing"

	"defenderiot/services/simulator"
)

// TestOwnLogArrivesAtDevo runs the one process: what the fetcher logs, and the line of the start, arrive beside
// the alerts, with the names of their origin.
func TestOwnLogArrivesAtDevo(t *testing.T) {
	s := newSite(t, simulator.Options{KeepFrames: true})
	const alerts, local, global = "edr.microsoft_defender.iot_security.alert", "devo.collectors.out.local.info", "devo.collectors.out.global.info"
	const collecting = local + `: {"msg":"Starting data collection every 10 seconds"`
	s.carry("", 3, func() bool {
		tags := s.Devo.Stats().Tags
		return tags[alerts] >= 3 && tags[global] == 1 && bytes.Contains(bytes.Join(s.Devo.Frames(), nil), []byte(collecting))
	})
	var pull, start int
	for _, frame := range s.Devo.Frames() {
		switch {
		case bytes.Contains(frame, []byte(collecting)):
			pull++
			if !strings.Contains(string(frame), `"input_name":"defender_for_iot","service_name":"iot_security_alerts","module_name":"IotPuller"`) {
				t.Errorf("without its origin: %s", frame)
			}
		case bytes.Contains(frame, []byte(global+`: {"msg":"Build time: `)):
			start++
			if !bytes.HasSuffix(frame, []byte(`"shared_domain":true}`)) {
				t.Errorf("not shared: %s", frame)
			}
		}
	}
	if pull == 0 || start != 1 {
		t.Errorf("%d lines of the fetcher, %d of the start", pull, start)
	}
	if missing := s.Missing(); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
}
