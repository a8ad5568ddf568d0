//go:build e2e

package e2e

import (
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// The limits of all levels hold together in every stretch of time, and only delay what is read.
func TestRequestsLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{Backfill: 20},
		"globals:", "globals:\n  requests_limits: [{period: 1d, number_of_requests: 1000}, {period: 4s, number_of_requests: 3}]",
		"    environment: demo\n", "    environment: demo\n    requests_limits: [{period: 20s, number_of_requests: 10}]\n",
		"quota_share: 1", "quota_share: 1\n        requests_limits: [{period: 1s, number_of_requests: 1}, {period: 5s, number_of_requests: -1}]")
	p := w.run()
	end := w.feed(10)
	p.says(" INFO InputProcess::IotPuller(defender_for_iot,23453,iot_security_alerts,predefined) -> Local rate limit is blocking new calls for ", " seconds\n")
	p.says("no wait will be applied in this loop")
	eventually(t, "thirty requests", func() bool { return len(w.sim.Graph.Requests()) >= 30 })
	end()
	w.arrived()
	p.stop()
	if lines := p.Log.Lines("ERROR"); len(lines) > 0 {
		t.Errorf("errors: %v", lines)
	}
	requests := w.sim.Graph.Requests()
	for _, limit := range []struct {
		period time.Duration
		most   int
	}{{time.Second, 1}, {4 * time.Second, 3}, {20 * time.Second, 10}} {
		// The first may have been late on its way, which is all that a busy machine can do to this bound.
		least := time.Duration((len(requests)-1)/limit.most)*limit.period - 2*time.Second
		if took := requests[len(requests)-1].Time.Sub(requests[0].Time); took < least {
			t.Errorf("%d requests within %v, with %d in %v it takes %v", len(requests), took, limit.most, limit.period, least)
		}
	}
}
