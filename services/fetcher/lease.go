package fetcher

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// keyValue is what lease and record need of their bucket.
type keyValue interface {
	Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error)
	Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error
}

// errFenced: another fetcher has taken the lease over. What this one holds in its hands is of no use any
// more; it goes back to standing by.
var errFenced = errors.New("another fetcher holds the lease")

// leaseValue is what the lease's key holds. Only its revision matters to standbys; the nonce tells the
// holder after an unknown outcome whether its own write was stored.
type leaseValue struct {
	Holder string `json:"holder"`
	Nonce  string `json:"nonce"`
	// Principal is who asks Azure under this lease: those of one principal divide its quota. Absent in leases of
	// programs that did not know it.
	Principal resourcegraph.Principal `json:"principal,omitzero"`
}

// origin is how a lease came to its holder.
type origin int

const (
	fresh     origin = iota // nobody is known to have held it shortly before
	released                // its holder let go of it while this one stood by
	inherited               // its holder showed no sign of life while this one stood by: to the others it is one lease all along
)

// lease is one acquisition of a source's lease; see the package documentation for its states. Its
// methods are safe for concurrent use after acquire has returned.
type lease struct {
	kv     keyValue
	key    string
	holder string
	timing timing
	logger *slog.Logger
	// principal goes into the lease, spread says when a free one may be taken; both may be left out.
	principal resourcegraph.Principal
	spread    *spread
	origin    origin // known when acquire has returned

	gate     gate // guards the fields below, over the requests that change them
	value    []byte
	nonce    string
	revision uint64

	mu      sync.Mutex
	renewed time.Time // before the request of the last acknowledged renewal, monotonic
	stored  uint64    // the revision of that renewal

	// epoch is the revision of the acquisition: a number that no other acquisition has or will have.
	epoch uint64
	// own is the nonce of the last acquisition by the same fetcher, which has ended: what is left of that needs no
	// waiting. A renewal of it that is still on its way comes too late, by its revision.
	own string
}

func newLease(kv keyValue, key, holder string, t timing, logger *slog.Logger) *lease {
	return &lease{kv: kv, key: key, holder: holder, timing: t, logger: logger, gate: newGate()}
}

func (f *Fetcher) newLease(kv keyValue) *lease {
	l := newLease(kv, proto.LeaseKey(f.source), f.instance, f.timing, f.logger)
	l.spread = f.spread
	if f.quota != nil {
		l.principal = f.quota.Principal()
	}
	return l
}

// acquire stands by until the lease is held; its only error is ctx's. With alone, what is left of a
// killed process is taken over without waiting, and so is always what is left of this fetcher's own last one.
func (l *lease) acquire(ctx context.Context, alone bool) error {
	var c complaint
	var seen uint64
	var since, free time.Time
	moved := false // the holder has renewed it before our eyes
	for {
		entry, err := l.get(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrKeyNotFound):
			if free.IsZero() {
				free = time.Now()
			}
			if l.spread.reserve(time.Since(free)) {
				if l.take(ctx, 0) {
					if seen != 0 {
						l.origin = released
					}
					return nil
				}
				l.spread.add(-1)
			}
		case err != nil:
			c.raise(l.logger, slog.LevelWarn, "the lease cannot be read, standing by", err)
		case alone, l.own != "" && nonceOf(entry.Value()) == l.own:
			if l.take(ctx, entry.Revision()) {
				l.spread.add(1)
				return nil
			}
		case entry.Revision() != seen:
			moved, free = seen != 0, time.Time{}
			if seen == 0 {
				l.logger.Info("standing by: another fetcher is active", "holder", holderOf(entry.Value()))
			}
			seen, since = entry.Revision(), time.Now()
			c.over(l.logger, "the lease can be read again")
		case time.Since(since) >= l.timing.expiry:
			if l.take(ctx, seen) {
				if moved && time.Since(since) < l.timing.expiry+l.timing.leaseCall {
					l.origin = inherited
				}
				l.spread.add(1)
				l.logger.Info("took the lease over: its holder has shown no sign of life",
					"holder", holderOf(entry.Value()), "seconds", time.Since(since).Seconds())
				return nil
			}
		}
		if !sleep(ctx, nil, jittered(l.timing.poll)) {
			return ctx.Err()
		}
	}
}

func (l *lease) get(ctx context.Context) (jetstream.KeyValueEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timing.leaseCall)
	defer cancel()
	return l.kv.Get(ctx, l.key)
}

// take makes one attempt to replace revision (0: nothing there) by a lease of its own.
func (l *lease) take(ctx context.Context, revision uint64) bool {
	if l.gate.enter(ctx) != nil {
		return false
	}
	defer l.gate.leave()
	l.nonce = rand.Text()
	value, err := json.Marshal(leaseValue{Holder: l.holder, Nonce: l.nonce, Principal: l.principal})
	if err != nil {
		return false
	}
	l.value = value
	before := time.Now()
	callCtx, cancel := context.WithTimeout(ctx, l.timing.leaseCall)
	defer cancel()
	var got uint64
	if revision == 0 {
		got, err = l.kv.Create(callCtx, l.key, value)
	} else {
		got, err = l.kv.Update(callCtx, l.key, value, revision)
	}
	if err != nil {
		// Unknown is not failed: the nonce tells.
		entry, getErr := l.get(ctx)
		if getErr != nil || nonceOf(entry.Value()) != l.nonce {
			return false
		}
		got = entry.Revision()
	}
	l.revision, l.epoch = got, got
	l.noteRenewal(before, got)
	return true
}

// confirm renews the lease now. Nil proves that no other fetcher had taken it over up to this moment;
// errFenced that one has; any other error leaves it open.
func (l *lease) confirm(ctx context.Context) error {
	if err := l.gate.enter(ctx); err != nil {
		return err
	}
	defer l.gate.leave()
	before := time.Now()
	callCtx, cancel := context.WithTimeout(ctx, l.timing.leaseCall)
	defer cancel()
	revision, err := l.kv.Update(callCtx, l.key, l.value, l.revision)
	if err != nil {
		entry, getErr := l.get(ctx)
		switch {
		case errors.Is(getErr, jetstream.ErrKeyNotFound):
			return fmt.Errorf("%w: the lease was removed", errFenced)
		case getErr != nil:
			return fmt.Errorf("renew the lease: %w", err)
		case nonceOf(entry.Value()) != l.nonce && entry.Revision() > l.revision:
			return fmt.Errorf("%w: %s", errFenced, holderOf(entry.Value()))
		case nonceOf(entry.Value()) != l.nonce || entry.Revision() <= l.revision:
			// Not stored, or a replica that lags behind answered.
			return fmt.Errorf("renew the lease: %w", err)
		}
		revision = entry.Revision()
	}
	l.revision = revision
	l.noteRenewal(before, revision)
	return nil
}

// keep renews the lease until ctx ends (nil) or it is lost.
func (l *lease) keep(ctx context.Context) error {
	wait := l.timing.renew
	for sleep(ctx, nil, wait) {
		err := l.confirm(ctx)
		switch {
		case err == nil:
			wait = l.timing.renew
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errFenced):
			return err
		case l.sinceRenewal() >= l.timing.giveUp:
			return fmt.Errorf("not renewed for %v: %w", l.sinceRenewal().Round(time.Second), err)
		default:
			wait = l.timing.renew / 5
		}
	}
	return nil
}

func (l *lease) noteRenewal(at time.Time, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed, l.stored = at, revision
}

// storedRevision is the newest revision that is known to be stored.
func (l *lease) storedRevision() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored
}

func (l *lease) lastRenewal() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renewed
}

func (l *lease) sinceRenewal() time.Duration { return time.Since(l.lastRenewal()) }

// release lets a standby take over at once. If it fails, the standby waits as after a crash.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.timing.leaseCall)
	defer cancel()
	if l.gate.enter(ctx) != nil {
		return
	}
	defer l.gate.leave()
	if err := l.kv.Delete(ctx, l.key, jetstream.LastRevision(l.revision)); err != nil {
		l.logger.Debug("the lease was not released; it expires", "error", err)
	}
}

func nonceOf(value []byte) string {
	var v leaseValue
	if json.Unmarshal(value, &v) != nil {
		return ""
	}
	return v.Nonce
}

func holderOf(value []byte) string {
	var v leaseValue
	if json.Unmarshal(value, &v) != nil {
		return "unreadable"
	}
	return v.Holder
}
