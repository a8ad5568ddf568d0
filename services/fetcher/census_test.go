package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// pool is a principal's quota of 15 requests as all of its clients can use it together at the worst.
type pool struct {
	mu      sync.Mutex
	clients []*part
	worst   int
}

// part is a client's quota: what it can have sent within the last moments is as much as the largest part of them allowed.
type part struct {
	pool      *pool
	principal resourcegraph.Principal
	held      time.Time
	allowed   []allowance // not over for longer than the settling
}

type allowance struct {
	limit       int
	from, until time.Time
}

const poolWhole = 15

func (p *pool) client(principal resourcegraph.Principal) *part {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &part{pool: p, principal: principal}
	p.clients = append(p.clients, c)
	return c
}

func (c *part) Principal() resourcegraph.Principal { return c.principal }

func (c *part) Divide(parts int, until time.Time) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	now := time.Now()
	if n := len(c.allowed); n > 0 && c.allowed[n-1].until.After(now) {
		c.allowed[n-1].until = now
	}
	c.allowed = append(c.allowed, allowance{max(poolWhole/parts, 1), later(now, c.held), until})
}

func (c *part) Hold(d time.Duration) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	now := time.Now()
	c.held = now.Add(d)
	if n := len(c.allowed); n > 0 { // the part that was given just before
		c.allowed[n-1].from = c.held
	}
}

// end is when the client's process is no more.
func (c *part) end() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for i := range c.allowed {
		c.allowed[i].until = earlier(c.allowed[i].until, time.Now())
	}
}

// look notes how many requests may now count at Azure at the worst.
func (p *pool) look() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum, now := 0, time.Now()
	for _, c := range p.clients {
		most, kept := 0, c.allowed[:0]
		for _, a := range c.allowed {
			if a.until.Add(resourcegraph.QuotaSettles).After(now) {
				kept = append(kept, a)
				if a.until.After(a.from) && !a.from.After(now) {
					most = max(most, a.limit)
				}
			}
		}
		c.allowed = kept
		sum += most
	}
	p.worst = max(p.worst, sum)
	return sum
}

// TestTheQuotaOfOnePrincipal: whatever starts, stops in order, dies, loses the bus or takes over, at any time: what all
// fetchers of a principal may send together never exceeds its quota, and comes to most of it when all is quiet.
func TestTheQuotaOfOnePrincipal(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 7))
				w, p := newWorld(), &pool{}
				who := resourcegraph.Principal{Client: "app", Tenant: "contoso.com"}
				type one struct {
					*running
					quota *part
				}
				alive := map[string]one{}
				start := func(name string, input int) {
					q := p.client(who)
					alive[name] = one{w.start(t, func(o *Options) {
						o.Source.Input = fmt.Sprintf("input-%d", input)
						o.Quota, o.Instance = q, name
					}), q}
				}
				wait := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); {
						w.settle(100 * time.Millisecond)
						if n := p.look(); n > poolWhole {
							t.Fatalf("%d requests are possible at once", n)
						}
					}
				}
				// Two processes for each of three inputs.
				for n := range 80 {
					input, copied := random.IntN(3), random.IntN(2)
					name := fmt.Sprintf("%d-%d", input, copied)
					f, ok := alive[name]
					switch {
					case !ok:
						if len(alive) == 0 {
							// Who comes after somebody who is gone makes one request, and learns from the answer what is left.
							wait(resourcegraph.QuotaSettles)
						}
						start(name, input)
					case n%3 == 0:
						f.halt(t)
						f.quota.end()
						delete(alive, name)
					case n%3 == 1: // dies
						f.process.dieAfter(1, random.IntN(2) == 0, nil)
						f.quota.end()
						f.cancel()
						<-f.done
						delete(alive, name)
					default: // loses the bus and goes on as if nothing were
						f.process.dieAfter(1, true, nil)
						wait(time.Duration(random.IntN(30)) * time.Second)
						f.cancel()
						<-f.done
						f.quota.end()
						delete(alive, name)
					}
					wait(time.Duration(random.IntN(20_000)) * time.Millisecond)
				}
				for input := range 3 {
					if name := fmt.Sprintf("%d-0", input); alive[name].running == nil {
						start(name, input)
					}
				}
				wait(time.Minute)
				if n := p.look(); n != 15 {
					t.Errorf("%d requests are allowed at rest, want 3 times 5", n)
				}
				for _, f := range alive {
					f.halt(t)
				}
			})
		})
	}
}

// Fetchers of different principals have nothing to divide.
func TestPrincipalsDoNotDivide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(), &pool{}
		var all []*running
		for i := range 2 {
			q := p.client(resourcegraph.Principal{Client: fmt.Sprint(i)})
			all = append(all, w.start(t, func(o *Options) { o.Source.Input, o.Quota = fmt.Sprint(i), q }))
		}
		w.settle(10 * time.Second)
		if n := p.look(); n != 2*poolWhole {
			t.Errorf("%d requests are allowed", n)
		}
		for _, r := range all {
			r.halt(t)
		}
	})
}

// One lease that the bus cannot read stops nobody: it counts as one more input, is told of once, and when it is gone
// the quota is whole again.
func TestAnUnreadableLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(), &pool{}
		lost := proto.LeaseKey(proto.Source{Input: "lost"})
		w.keys[lost] = &entry{revision: 1, gone: true, damaged: true}
		w.put("/a", time.Now().Add(-time.Minute))
		q := p.client(resourcegraph.Principal{Client: "app"})
		r := w.start(t, func(o *Options) { o.Quota = q })
		w.settle(2 * time.Minute)
		w.with(func() {
			if !w.rawHas("/a") {
				t.Error("nothing was fetched")
			}
		})
		if n := p.look(); n != poolWhole/2 {
			t.Errorf("%d requests are allowed beside it, want a half", n)
		}
		if n := r.logs.count("ERROR leases cannot be read"); n != 1 || r.logs.count("`nats kv del checkpoints "+lost+"`") != 1 {
			t.Errorf("%d lines:\n%s", n, strings.Join(r.logs.all(), "\n"))
		}
		w.with(func() { delete(w.keys, lost) })
		w.settle(20 * time.Second)
		if n := p.look(); n != poolWhole || r.logs.count("INFO all leases can be read again") != 1 {
			t.Errorf("%d requests are allowed without it", n)
		}
		r.halt(t)
	})
}

// While the leases cannot be counted a fetcher says so, louder when its part is no longer good.
func TestLeasesThatCannotBeCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(), &pool{}
		q := p.client(resourcegraph.Principal{Client: "app"})
		r := w.start(t, func(o *Options) { o.Quota = q })
		w.settle(10 * time.Second)
		w.with(func() { w.uncounted = errors.New("no answer") })
		w.settle(5 * time.Second)
		if r.logs.count("WARN the leases of the principal cannot be counted") != 1 || r.logs.count("ERROR the leases") != 0 {
			t.Errorf("at once:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		w.settle(15 * time.Second)
		if r.logs.count("ERROR the leases of the principal cannot be counted") != 1 || p.look() != 0 {
			t.Errorf("later:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		w.with(func() { w.uncounted = nil })
		w.settle(5 * time.Second)
		if r.logs.count("INFO the leases are counted again") != 1 || p.look() != poolWhole {
			t.Errorf("in the end:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
	})
}

// held is a client whose requests wait for the quota, within their deadlines.
type held struct {
	*process
	quota *part
}

func (h held) Page(ctx context.Context, q resourcegraph.Query) (*resourcegraph.Page, error) {
	h.quota.pool.mu.Lock()
	d := time.Until(h.quota.held)
	h.quota.pool.mu.Unlock()
	if d > 0 && !sleep(ctx, nil, d) {
		return nil, ctx.Err()
	}
	return h.process.Page(ctx, q)
}

// The wait of a second input of one principal is none of its set-up's time, however short that is.
func TestTheWaitForTheQuotaFailsNoSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(), &pool{}
		var all []*running
		for i := range 2 {
			q := p.client(resourcegraph.Principal{Client: "app"})
			r := w.start(t, func(o *Options) {
				o.Source.Input, o.Quota, o.Service.SetupTimeout = fmt.Sprint(i), q, 2*time.Second
				o.Graph = held{o.Graph.(*process), q}
			})
			all = append(all, r)
			w.settle(14 * time.Second)
			if r.logs.count("SetupError") != 0 || r.logs.count("The data is up to date!") != 1 {
				t.Errorf("input %d:\n%s", i, strings.Join(r.logs.all(), "\n"))
			}
		}
		for _, r := range all {
			r.halt(t)
		}
	})
}

// Several inputs come to several processes that start at about the same time; a process that is alone takes all of them.
func TestInputsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		kv, _ := w.process().KeyValue(t.Context(), "")
		both := []*spread{{each: time.Second}, {each: time.Second}}
		holders := make([]int, 2)
		var mu sync.Mutex
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i, s := range both {
			for input := range 4 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * 300 * time.Millisecond)
					l := newLease(kv, proto.LeaseKey(proto.Source{Input: fmt.Sprint(input)}), fmt.Sprint(i), defaultTiming(), slog.New(slog.DiscardHandler))
					l.spread = s
					if l.acquire(ctx, false) == nil {
						mu.Lock()
						holders[i]++
						mu.Unlock()
						_ = l.keep(ctx)
					}
				})
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if holders[0] != 2 || holders[1] != 2 {
			t.Errorf("the inputs are spread %v", holders)
		}
		mu.Unlock()
		cancel()
		all.Wait()
		w.keys = map[string]*entry{}
		alone := &spread{each: time.Second}
		for input := range 4 {
			l := newLease(kv, proto.LeaseKey(proto.Source{Input: fmt.Sprint(input)}), "alone", defaultTiming(), slog.New(slog.DiscardHandler))
			l.spread = alone
			if err := l.acquire(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
	})
}
