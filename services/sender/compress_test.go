package sender_test

import (
	"testing"
	"time"

	"defenderiot/services/sender"
	"defenderiot/services/simulator"
)

// startGzip starts a sender that compresses from the threshold on; small members make many of them.
func (r *rig) startGzip(t testing.TB, threshold float64) (stop func()) {
	t.Helper()
	return start(t, r.bus, sender.OutputSettings{
		Name: output, Endpoint: r.endpoint, Connections: 1, RotateEvents: 2500, RotateAfter: 5 * time.Second,
		Compression: &sender.Compression{Threshold: threshold, Level: 6, MemberBytes: 51200},
	})
}

func TestAlwaysCompressed(t *testing.T) {
	r := newRig(t)
	ids := fill(t, r.bus, "z", 8000)
	stop := r.startGzip(t, -1)
	v := settled(t, r.bus, 8000)
	stop()
	r.check(t, ids, v)
	stats := r.devo.Stats()
	// 34 frames of 1,500 bytes fit a member.
	if stats.Members < 8000/35 || stats.Duplicates != 0 || stats.CutTails != 0 || v.Unconfirmed() != 0 || v.Floor != 8000 {
		t.Errorf("%d members, %d repeats, %d cut tails, ledger %+v", stats.Members, stats.Duplicates, stats.CutTails, v)
	}
}

// TestPlainAndCompressedAlternate has 2,000 alerts wait: more than half a batch behind the first ones, less
// behind the last ones. So one connection carries members and then plain frames.
func TestPlainAndCompressedAlternate(t *testing.T) {
	r := newRig(t)
	ids := fill(t, r.bus, "waiting", 2000)
	stop := r.startGzip(t, 0.5)
	v := settled(t, r.bus, 2000)
	stop()
	r.check(t, ids, v)
	stats := r.devo.Stats()
	t.Logf("%d members on %d connections", stats.Members, stats.Connections)
	if stats.Members == 0 || stats.Members >= 2000/35 {
		t.Errorf("%d members: not a part was compressed", stats.Members)
	}
	if stats.Duplicates != 0 || stats.CutTails != 0 {
		t.Errorf("%d repeats, %d cut tails", stats.Duplicates, stats.CutTails)
	}
}

// TestFaultsInMidMember breaks connections while members are on them: nothing is missing, and what comes
// again is counted.
func TestFaultsInMidMember(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault simulator.DevoFault
		cut   bool // the endpoint stops reading within a member
	}{
		"resets-within-a-member":      {simulator.DevoFault{Connections: 3, AfterBytes: 5000, End: simulator.Reset}, true},
		"resets-behind-some-members":  {simulator.DevoFault{Connections: 4, AfterFrames: 300, End: simulator.Reset}, false},
		"closes-with-unread-data":     {simulator.DevoFault{AfterFrames: 700, Stall: 300 * time.Millisecond, End: simulator.CloseUnread, ReceiveBuffer: 4 << 10}, false},
		"closes-politely-in-a-member": {simulator.DevoFault{Connections: 2, AfterBytes: 5000, End: simulator.CloseOrderly}, true},
		"reads-slowly":                {simulator.DevoFault{Connections: 2, ThrottleBytes: 8 << 10, ThrottleEvery: 20 * time.Millisecond}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.devo.Fail(tt.fault)
			ids := fill(t, r.bus, "f", 6000)
			stop := r.startGzip(t, -1)
			v := settled(t, r.bus, 6000)
			stop()
			r.check(t, ids, v)
			stats := r.devo.Stats()
			if tt.cut && stats.CutTails == 0 {
				t.Error("no member was cut")
			}
			if stats.Members == 0 {
				t.Error("nothing was compressed")
			}
		})
	}
}
