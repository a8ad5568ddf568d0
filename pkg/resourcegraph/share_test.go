package resourcegraph

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answered is how many requests were not refused so far.
func (q *quotaServer) answered() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.served
}

// greedy makes a client that asks as fast as it may until ctx ends.
func greedy(ctx context.Context, t *testing.T, all *sync.WaitGroup, q *quotaServer, share float64) *Client {
	t.Helper()
	c, err := newClient(Settings{QuotaShare: share}, hooks{transport: q, credential: anyToken{}})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Page(ctx, Query{Text: "q"}); err != nil && ctx.Err() == nil {
					t.Errorf("page: %v", err)
					return
				}
			}
		})
	}
	return c
}

// Several clients of one principal never see a 429, also while their number changes: whoever was there before gets the
// smaller part, and whoever comes waits until that holds.
func TestClientsThatDivideTheirShareSeeNo429(t *testing.T) {
	for _, tt := range []struct {
		share   float64
		clients int
		least   float64 // requests in 5 s, of all together
	}{{1, 2, 13}, {1, 4, 11}, {0.6, 2, 7.5}, {0.6, 3, 8.5}, {0.6, 9, 8.5}} {
		for _, sliding := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				q := &quotaServer{sliding: sliding, work: 200 * time.Millisecond, wire: 50 * time.Millisecond, epoch: time.Now().Add(-time.Second)}
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				var clients []*Client
				for range tt.clients {
					c := greedyHeld(ctx, t, &all, q, tt.share, len(clients) > 0)
					clients = append(clients, c)
					for _, c := range clients {
						c.Divide(len(clients), time.Time{})
					}
					time.Sleep(20 * time.Second)
				}
				before := q.answered()
				time.Sleep(10 * time.Minute)
				got := float64(q.answered()-before) / 120
				cancel()
				all.Wait()
				if q.refused > 0 {
					t.Errorf("%+v, sliding %v: %d times 429", tt, sliding, q.refused)
				}
				if got < tt.least || got > 15*tt.share {
					t.Errorf("%+v, sliding %v: %.2f requests in 5 s", tt, sliding, got)
				}
			})
		}
	}
}

// greedyHeld is greedy for a client that waits first until the parts of those before it have settled.
func greedyHeld(ctx context.Context, t *testing.T, all *sync.WaitGroup, q *quotaServer, share float64, held bool) *Client {
	t.Helper()
	c := greedy(ctx, t, all, q, share)
	if held {
		c.Hold(QuotaSettles)
	}
	return c
}

// A part that is not renewed in time ends all requests until it is.
func TestAnOutdatedPartStopsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quotaServer{work: 50 * time.Millisecond, epoch: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		c := greedy(ctx, t, &all, q, 0.6)
		c.Divide(1, time.Now().Add(7*time.Second))
		time.Sleep(8 * time.Second)
		before := q.answered()
		time.Sleep(time.Minute)
		if got := q.answered() - before; got != 0 || before == 0 {
			t.Errorf("%d requests before, %d after the end of the part", before, got)
		}
		c.Divide(3, time.Now().Add(time.Minute))
		time.Sleep(59 * time.Second)
		if got := q.answered() - before; got < 30 || got > 40 {
			t.Errorf("%d requests in a minute of a third, want about 36", got)
		}
		cancel()
		all.Wait()
	})
}

// More parts than requests: the average holds.
func TestMorePartsThanRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quotaServer{work: 50 * time.Millisecond, epoch: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		c := greedy(ctx, t, &all, q, 0.2)
		c.Divide(7, time.Time{}) // 3 requests: one in 15 s
		time.Sleep(time.Minute)
		before := q.answered()
		time.Sleep(10 * time.Minute)
		if got := q.answered() - before; got < 38 || got > 40 {
			t.Errorf("%d requests in 10 minutes, want 40", got)
		}
		cancel()
		all.Wait()
	})
}

func TestPrincipals(t *testing.T) {
	const one, other = "11111111-1111-1111-1111-11111111111A", "22222222-2222-2222-2222-222222222222"
	secret := func(client, tenant string) Principal {
		return Credential{ClientID: client, TenantID: tenant}.principal()
	}
	managed := Credential{Kind: KindManagedIdentity}
	for _, tt := range []struct {
		a, b Principal
		may  bool
	}{
		{secret("A", one), secret("a", "11111111-1111-1111-1111-11111111111a"), true},
		{secret("a", one), secret("b", one), false},
		{secret("a", one), secret("a", other), false},
		{secret("a", one), secret("a", "contoso.onmicrosoft.com"), true},
		{secret("a", "fabrikam.com"), secret("a", "contoso.onmicrosoft.com"), true},
		{Principal{}, secret("a", one), true},
		{managed.principal(), managed.principal(), true},
		{managed.principal(), secret("a", one), false},
	} {
		if tt.a.MayBe(tt.b) != tt.may || tt.b.MayBe(tt.a) != tt.may {
			t.Errorf("%+v and %+v: want %v", tt.a, tt.b, tt.may)
		}
	}
}
