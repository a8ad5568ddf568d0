package trial

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestCare(t *testing.T) {
	const first = 1000
	orderly, c := NewCare(0), NewCare(first)
	old, now := c.until.Add(-time.Hour), c.until.Add(time.Second)
	if orderly.Needed(&jetstream.MsgMetadata{NumDelivered: 1, Timestamp: old}) || !orderly.Needed(&jetstream.MsgMetadata{NumDelivered: 2, Timestamp: old}) {
		t.Error("after an orderly stop what was delivered before is tried, and only that")
	}
	if !c.Needed(&jetstream.MsgMetadata{NumDelivered: 2, Timestamp: now}) || c.Needed(&jetstream.MsgMetadata{NumDelivered: 1, Timestamp: now}) {
		t.Error("a new message is tried when it was delivered before, and only then")
	}
	for name, c := range map[string]*Care{"the first": c, "another": c.Another()} {
		n := 0
		for range 2 * first {
			if c.Needed(&jetstream.MsgMetadata{NumDelivered: 1, Timestamp: old}) {
				n++
			}
		}
		if n != first {
			t.Errorf("%s: %d old messages are tried, want %d", name, n, first)
		}
	}
	c.until = time.Now().Add(-time.Second)
	if c.Another().Needed(&jetstream.MsgMetadata{NumDelivered: 1, Timestamp: old}) {
		t.Error("a consumer that is found much later is taken with care")
	}
	seldom := &jetstream.MsgMetadata{NumDelivered: 1, Timestamp: now}
	if allocs := testing.AllocsPerRun(100, func() { c.Needed(seldom) }); allocs != 0 {
		t.Errorf("%v allocations for a new message", allocs)
	}
}

func TestDelay(t *testing.T) {
	for n, before := uint64(1), time.Duration(0); n < 100; n++ {
		d := Delay(n)
		if d < before || d < 5*time.Second || d > 5*time.Minute {
			t.Errorf("delivery %d waits %v after %v", n, d, before)
		}
		before = d
	}
}
