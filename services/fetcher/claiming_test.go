package fetcher

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/proto"
)

// dedupRuns claims what is in RAW every 100 ms until the returned function is called.
func (w *world) dedupRuns() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(100 * time.Millisecond):
				w.with(w.dedup)
			}
		}
	}()
	return func() { close(end); <-done }
}

// write stores a record as a command does.
func (w *world) write(c *proto.Checkpoint) {
	data, err := c.Encode()
	if err != nil {
		panic(err)
	}
	w.revision++
	w.keys[proto.RecordKey(testSource)] = &entry{value: data, revision: w.revision}
}

// imported puts the record of an imported state there: everything before `before` was sent.
func (w *world) imported(start, before time.Time, ids ...string) {
	w.write(&proto.Checkpoint{
		PersistenceVersion: proto.PersistenceVersion, StartTime: &start, Floor: start, LastEventTime: before, Generation: 1,
		Claiming: &proto.Claiming{Before: before, Through: start, IDs: ids},
	})
}

// copies counts what RAW holds of an alert to be sent, and to be claimed only, in a generation.
func (w *world) copies(id string, generation uint64) (sent, claimed int) {
	for _, e := range w.raw {
		switch {
		case e.AlertID != id || e.Generation != generation:
		case e.ClaimOnly:
			claimed++
		default:
			sent++
		}
	}
	return sent, claimed
}

func TestImportedStateIsClaimedWithoutSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().UTC()
		start, before := now.Add(-72*time.Hour), now.Add(-2*time.Hour)
		for id, at := range map[string]time.Time{
			"/below": start.Add(-time.Second), "/first": start, "/old": now.Add(-20 * time.Hour), "/last": before.Add(-100 * time.Nanosecond),
			"/x/named": before, "/cut": before.Add(400 * time.Millisecond), "/at": before, "/new": now.Add(-time.Hour), "/nostart": {},
		} {
			w.put(id, at)
		}
		w.imported(start, before, "named", "/cut")
		stop := w.dedupRuns()
		defer stop()
		configured := func(o *Options) { o.Service.Start = start }
		r := w.start(t, configured)
		w.settle(15 * time.Minute)
		w.with(func() {
			for id, want := range map[string][2]int{
				"/below": {0, 0}, "/first": {0, 1}, "/old": {0, 1}, "/last": {0, 1}, "/x/named": {0, 1}, "/cut": {0, 1}, "/at": {1, 0}, "/new": {1, 0}, "/nostart": {1, 0},
			} {
				if sent, claimed := w.copies(id, 1); sent != want[0] || claimed != want[1] {
					t.Errorf("%s was sent %d times and claimed %d times, want %v", id, sent, claimed, want)
				}
			}
			if c := w.checkpoint(); c.Claiming != nil || c.Generation != 1 || !c.LastEventTime.Equal(now.Add(-time.Hour)) || len(c.Subscriptions) != 1 {
				t.Errorf("record %+v", c)
			}
			w.put("/late", now.Add(-5*time.Hour)) // shown only now: nobody has sent it
		})
		if r.logs.count("All records that were sent before are claimed: 5 without being sent") != 1 {
			t.Errorf("the counts were not logged: %q", r.logs.lines)
		}
		w.settle(40 * time.Minute)
		if sent, claimed := w.copies("/late", 1); sent != 1 || claimed != 0 {
			t.Errorf("late row: sent %d, claimed %d", sent, claimed)
		}
		w.notBelow(t, start)
		r.halt(t)
	})
}

// Killed at any call, the phase goes on and nothing old is ever sent, even where dedup is slow.
func TestKilledWhileClaiming(t *testing.T) {
	for calls := 1; calls < 90; calls += 7 {
		for _, done := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d-%v", calls, done), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					now := time.Now().UTC()
					start, before := now.Add(-300*time.Hour), now.Add(-2*time.Hour)
					for i := range 40 {
						w.put(fmt.Sprintf("/old/%d", i), start.Add(time.Duration(i)*7*time.Hour))
					}
					w.put("/at", before)
					w.imported(start, before)
					stop := w.dedupRuns()
					defer stop()
					configured := func(o *Options) { o.Service.Start = start }
					r := w.start(t, configured)
					r.dieAfter(calls, done, r.cancel)
					w.settle(time.Minute)
					<-r.done
					r = w.start(t, configured)
					w.settle(10 * time.Minute)
					w.with(func() {
						for i := range 40 {
							if sent, claimed := w.copies(fmt.Sprintf("/old/%d", i), 1); sent != 0 || claimed == 0 {
								t.Errorf("/old/%d was sent %d times and claimed %d times", i, sent, claimed)
							}
						}
						if sent, _ := w.copies("/at", 1); sent == 0 || w.checkpoint().Claiming != nil {
							t.Errorf("the phase has not ended: %+v", w.checkpoint())
						}
					})
					r.halt(t)
				})
			})
		}
	}
}

// As long as dedup has not claimed, nothing is read that could overtake a claim.
func TestNoPullBeforeTheClaimsAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().UTC()
		w.put("/old", now.Add(-3*time.Hour))
		w.put("/new", now.Add(-time.Hour))
		w.imported(now.Add(-24*time.Hour), now.Add(-2*time.Hour))
		configured := func(o *Options) { o.Service.Start = now.Add(-24 * time.Hour) }
		r := w.start(t, configured)
		w.settle(30 * time.Minute)
		w.with(func() {
			if sent, _ := w.copies("/new", 1); sent != 0 || w.checkpoint().Claiming == nil || len(w.raw) != 1 {
				t.Errorf("sent %d, record %+v, %d rows", sent, w.checkpoint(), len(w.raw))
			}
		})
		if r.logs.count("waiting until dedup has claimed") != 1 {
			t.Errorf("%q", r.logs.lines)
		}
		r.halt(t) // also while it waits
		stop := w.dedupRuns()
		defer stop()
		r = w.start(t, configured)
		w.settle(5 * time.Minute)
		if sent, claimed := w.copies("/old", 1); sent != 0 || claimed == 0 {
			t.Errorf("old row: sent %d, claimed %d", sent, claimed)
		}
		if sent, _ := w.copies("/new", 1); sent != 1 {
			t.Errorf("new row: sent %d", sent)
		}
		r.halt(t)
	})
}

// A claim that cannot be read is dedup's last word on its row, so nothing waits for another one; a released one is not.
func TestClaimingEndsAtAnUnreadableClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().UTC()
		w.put("/broken", now.Add(-3*time.Hour))
		w.put("/released", now.Add(-4*time.Hour))
		w.put("/new", now.Add(-time.Hour))
		w.imported(now.Add(-24*time.Hour), now.Add(-2*time.Hour))
		released := claimsOf(testSource, 1).subject(proto.HashIdentity("/released"))
		w.claims[claimsOf(testSource, 1).subject(proto.HashIdentity("/broken"))] = []byte("junk")
		w.claims[released] = proto.Claim{RawSequence: 9, Released: true}.Encode()
		stop := w.dedupRuns()
		defer stop()
		r := w.start(t, func(o *Options) { o.Service.Start = now.Add(-24 * time.Hour) })
		w.settle(10 * time.Minute)
		w.with(func() {
			if sent, _ := w.copies("/new", 1); sent != 0 || w.checkpoint().Claiming == nil {
				t.Errorf("it does not wait for the released claim: sent %d, record %+v", sent, w.checkpoint())
			}
			w.claims[released] = proto.Claim{RawSequence: 10, Silent: true}.Encode()
		})
		w.settle(10 * time.Minute)
		w.with(func() {
			if sent, _ := w.copies("/new", 1); sent != 1 || w.checkpoint().Claiming != nil {
				t.Errorf("the phase has not ended: sent %d, record %+v", sent, w.checkpoint())
			}
		})
		r.halt(t)
	})
}

func TestResendStartsAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().UTC()
		start, to := now.Add(-60*time.Hour), now.Add(-2*time.Hour)
		w.put("/old", now.Add(-20*time.Hour))
		w.put("/again", now.Add(-time.Hour))
		w.put("/nostart", time.Time{})
		stop := w.dedupRuns()
		defer stop()
		r := w.start(t, func(o *Options) { o.Service.Start = start })
		w.settle(15 * time.Minute)
		w.with(func() {
			w.put("/unseen", now.Add(-10*time.Hour)) // not shown so far: missing, not sent
			c := w.checkpoint()
			c.Claiming = &proto.Claiming{Before: to, Through: c.Floor, KnownIn: 1}
			c.Replaced = []proto.ReplacedGeneration{{Generation: 1, ReplacedAt: time.Now()}}
			c.LastEventTime, c.LastIDs, c.Generation = to, nil, 2
			w.write(c)
		})
		w.settle(15 * time.Minute)
		w.with(func() {
			for id, want := range map[string][2]int{"/old": {0, 1}, "/nostart": {0, 1}, "/again": {1, 0}, "/unseen": {1, 0}} {
				if sent, claimed := w.copies(id, 2); sent != want[0] || claimed != want[1] {
					t.Errorf("%s was sent %d times and claimed %d times, want %v", id, sent, claimed, want)
				}
			}
			if c := w.checkpoint(); c.Generation != 2 || c.Claiming != nil {
				t.Errorf("record %+v", c)
			}
		})
		if n := r.logs.count("A command has changed the persistence, going on from there. Previous content: {"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		r.halt(t)
	})
}

// A reset without a new generation sends only what is missing, and is logged with both contents.
func TestResetSendsWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now().UTC()
		w.put("/sent", now.Add(-100*time.Hour))
		stop := w.dedupRuns()
		defer stop()
		r := w.start(t, func(o *Options) { o.Service.Start = now.Add(-200 * time.Hour); o.Service.Lookback = time.Hour })
		w.settle(15 * time.Minute)
		w.with(func() {
			w.put("/missing", now.Add(-90*time.Hour))
			c := w.checkpoint()
			c.LastEventTime, c.LastIDs = now.Add(-150*time.Hour), nil
			w.write(c)
		})
		w.settle(5 * time.Minute)
		w.with(func() {
			sent, _ := w.copies("/sent", 1)
			missing, _ := w.copies("/missing", 1)
			if sent != 1 || missing != 1 || w.checkpoint().LastEventTime.Before(now.Add(-90*time.Hour)) {
				t.Errorf("sent %d, missing %d, record %+v", sent, missing, w.checkpoint())
			}
		})
		found := false
		for _, line := range r.logs.lines {
			if strings.Contains(line, "A command has changed") {
				found = strings.Contains(line, now.Add(-150 * time.Hour).Format(time.RFC3339)[:16])
			}
		}
		if !found {
			t.Errorf("the new content is not in the log: %q", r.logs.lines)
		}
		r.halt(t)
	})
}
