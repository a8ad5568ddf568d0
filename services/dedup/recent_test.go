package dedup

import (
	"fmt"
	"testing"

	"defenderiot/pkg/seen"
	"defenderiot/proto"
)

func sightings(from, n int) []*sighting {
	var out []*sighting
	for i := range n {
		out = append(out, &sighting{key: fmt.Sprint("key", from+i), env: &proto.Envelope{}})
	}
	return out
}

func TestRecent(t *testing.T) {
	r := newRecent()
	count := func(what string, batch []*sighting, want int) {
		t.Helper()
		if got := len(r.suspects(batch)); got != want {
			t.Errorf("%s: %d of %d suspects, want %d", what, got, len(batch), want)
		}
	}
	count("nothing noted", sightings(0, 10), 0)
	r.note(sightings(0, 5))
	count("half of them noted", sightings(0, 10), 5)

	redelivered, replaced := sightings(100, 1), sightings(200, 1)
	redelivered[0].again = true
	replaced[0].env.OtherHashes = []string{"old"}
	count("delivered before", redelivered, 1)
	count("with a hash of an older version", replaced, 1)

	r.surprised()
	for range cautiousBatches {
		count("after a surprise", sightings(0, 10), 10)
	}
	count("long after it", sightings(0, 10), 5)

	// The memory is bounded, and the newest stay.
	const recentKeys = 2 * seen.Keep
	for i := range 3 {
		r.note(sightings(1000+i*recentKeys, recentKeys))
	}
	if n := r.claimed.Len(); n > recentKeys {
		t.Errorf("%d keys are kept, at most %d may be", n, recentKeys)
	}
	count("just noted", sightings(1000+3*recentKeys-100, 100), 100)
	count("noted long ago", sightings(0, 5), 0)
}
