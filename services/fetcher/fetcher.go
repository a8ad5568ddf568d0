package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/certificate"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// Graph is what the fetcher asks of Azure Resource Graph. *resourcegraph.Client has it; it keeps the
// quota and makes the few quick tries, the fetcher decides everything that takes longer.
type Graph interface {
	Token(ctx context.Context) error
	Page(ctx context.Context, q resourcegraph.Query) (*resourcegraph.Page, error)
	Subscriptions(ctx context.Context, subscriptions, managementGroups []string) ([]string, error)
	// Renewed says that the credential is made of something else now than when the last token was asked for.
	Renewed() bool
}

// Streams is what the fetcher does with streams.
type Streams interface {
	PublishBatch(ctx context.Context, stream string, msgs []bus.Message) error
	Lookup(ctx context.Context, stream string, subjects []string) (map[string]bus.Stored, error)
	DeadLetter(ctx context.Context, d proto.DeadLetter) error
	Purge(ctx context.Context, stream, filter string) error
}

// Buckets gives the bucket that holds lease and record, and all leases at once.
type Buckets interface {
	KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error)
	LookupAll(ctx context.Context, stream, filter string) (found map[string]bus.Stored, damaged []string, err error)
}

// Consumers tells how far dedup is.
type Consumers interface {
	Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error)
}

// Bus is what the fetcher needs of the bus; *bus.Bus has it.
type Bus interface {
	Streams
	Buckets
	Consumers
}

// The deduplication modes.
const (
	DeduplicateAlert   = "alert"   // each alert once
	DeduplicateVersion = "version" // again when its content changes
)

// Service is the configuration of one source.
type Service struct {
	// Period is the time from the start of one pull to the start of the next; at least one second.
	Period time.Duration
	// Refresh is the time from one set-up to the next; 0: only before the first pull and after a failed one.
	Refresh time.Duration
	// SetupTimeout bounds each request of a set-up with its repeats; 0: five minutes.
	SetupTimeout time.Duration
	// Start is the configured start time; the zero time when there is none.
	Start time.Time
	// Subscriptions or ManagementGroups limit the scope; neither: all that the principal can read.
	Subscriptions    []string
	ManagementGroups []string
	// AllowPartialScopes accepts an answer over a part of a scope that is too large.
	AllowPartialScopes bool
	// Overlap is read again before the position at each pull, Lookback before now at start and every
	// half hour.
	Overlap, Lookback time.Duration
	// Deduplication is DeduplicateAlert (the default) or DeduplicateVersion.
	Deduplication string
	// Ignore are the paths that make no new version.
	Ignore []string
	// Tag, Environment and Host go into every envelope.
	Tag, Environment, Host string
	// Overridden: Tag comes from override_tag.
	Overridden bool
	// Limited: requests_limits are configured for the source.
	Limited bool
	// TokenEndpoint and Endpoint are what set-up errors name where the client has not named them itself.
	TokenEndpoint, Endpoint string
	// Masker masks what must not be stored; nil when nothing is masked.
	Masker Masker
}

// Options are what a Fetcher is made from. Source, Graph and Bus are required.
type Options struct {
	Source  proto.Source
	Service Service
	// Collector is the collector's name, for the log.
	Collector string
	Graph     Graph
	// Quota is divided by the active inputs of its principal; nil divides nothing.
	Quota Quota
	Bus   Bus
	// Certificates reads what the client signs in with; nil for nothing that ends.
	Certificates func(now time.Time) ([]certificate.Validity, error)
	Logger       *slog.Logger
	Meter        metric.Meter
	Tracer       trace.Tracer
	// Instance names this process, uniquely among all that ever run; it is shown as the lease's holder.
	Instance string
	// Alone says that no other process can be alive that holds the lease, because the caller owns the
	// only bus there is (the embedded server with its folder lock). Then a lease that a killed process
	// left is taken over at once.
	Alone bool
	// Clock is this machine's wall clock; nil means time.Now. It names pulls and dates frames. Nothing
	// is decided by it once Azure has answered.
	Clock func() time.Time
}

// Fetcher fetches one source. Make it with New, call Run once. Ready is safe for concurrent use.
type Fetcher struct {
	source       proto.Source
	service      Service
	graph        Graph
	quota        Quota
	spread       *spread
	bus          Bus
	puller       string       // how the log calls it
	logger       *slog.Logger // of the puller
	setupLogger  *slog.Logger
	mainLogger   *slog.Logger
	collector    string
	tracer       trace.Tracer
	metrics      *metrics
	instance     string
	alone        bool
	wall         func() time.Time
	timing       timing
	certificates func(now time.Time) ([]certificate.Validity, error)
	hidden       hidden

	running  atomic.Bool
	pages    atomic.Uint64 // pages numbered so far in this process
	pageSize pageSize
	slots    chan struct{} // one for each page that background reads hold in memory

	idleRules sync.Once // the rules that mask nothing have been told
	begun     sync.Once // the lines of the start have been told

	mu       sync.Mutex
	lastPull int64
	notReady error
}

// backgroundPages bounds the pages that all reads beside the steady pull hold in memory together; one
// page is at most 16 MiB.
const backgroundPages = 6

// New checks the options and makes a Fetcher; it contacts nobody. A start time in the future is
// InitVariablesError 2, which ends the program.
func New(o Options) (*Fetcher, error) {
	s := o.Service
	switch {
	case o.Graph == nil || o.Bus == nil:
		return nil, errors.New("fetcher: Graph and Bus are required")
	case o.Source.Input == "" || o.Source.Service == "":
		return nil, errors.New("fetcher: the source has no name")
	case s.Period < time.Second:
		return nil, fmt.Errorf("fetcher: a period of %v is below one second", s.Period)
	case s.Overlap < 0 || s.Lookback < 0:
		return nil, errors.New("fetcher: overlap and lookback cannot be negative")
	case len(s.Subscriptions) > 0 && len(s.ManagementGroups) > 0:
		return nil, errors.New("fetcher: subscriptions and management groups exclude each other")
	}
	switch s.Deduplication {
	case "":
		s.Deduplication = DeduplicateAlert
	case DeduplicateAlert, DeduplicateVersion:
	default:
		return nil, fmt.Errorf("fetcher: deduplication %q is neither %s nor %s", s.Deduplication, DeduplicateAlert, DeduplicateVersion)
	}
	if o.Clock == nil {
		o.Clock = faultpoint.Now
	}
	if s.Start.After(o.Clock()) {
		return nil, fault.InitVariables(2, "Invalid start_time_in_utc: %s. Must be in the past.", s.Start.UTC().Format(time.RFC3339))
	}
	s.Subscriptions = lowered(s.Subscriptions)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Meter, o.Source)
	if err != nil {
		return nil, fmt.Errorf("fetcher: %w", err)
	}
	f := &Fetcher{
		source: o.Source, service: s, graph: o.Graph, quota: o.Quota, bus: o.Bus, puller: pullerThread(o.Source), tracer: tracerOr(o.Tracer),
		metrics: m, instance: o.Instance, alone: o.Alone, wall: o.Clock, timing: defaultTiming(),
		slots: make(chan struct{}, backgroundPages), notReady: errors.New("not started"),
		hidden: hiddenBy(s.Masker), certificates: o.Certificates,
	}
	if err := observeMasker(o.Meter, o.Source, s.Masker); err != nil {
		return nil, fmt.Errorf("fetcher: %w", err)
	}
	f.collector, f.mainLogger = o.Collector, telemetry.WithThread(o.Logger, telemetry.InputProcess, "MainThread")
	f.logger = telemetry.WithThread(o.Logger, telemetry.InputProcess, f.puller)
	f.setupLogger = telemetry.WithThread(o.Logger, telemetry.InputProcess, setupThread(o.Collector, o.Source))
	f.pageSize.top = resourcegraph.MaxTop
	return f, nil
}

// Run fetches until ctx ends and then returns nil: the page in work is finished within three seconds or
// left to the next start, and the lease is released. Trouble with Azure or the bus never ends it. It can
// be called once.
func (f *Fetcher) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("fetcher: Run was called twice")
	}
	defer f.setReady(errors.New("stopped"))
	defer f.watchCertificate(ctx)()
	kv := f.bind(ctx)
	if kv == nil {
		return nil
	}
	own := ""
	for {
		l := f.newLease(kv)
		l.own = own
		f.setReady(nil) // a standby is ready: it does what it is there for
		c := f.newCensus(l)
		if err := c.whileStandingBy(ctx, func() error { return l.acquire(ctx, f.alone) }); err != nil {
			return nil // only ctx ends it
		}
		f.setReady(errors.New("setting up"))
		f.metrics.lead(true)
		f.lead(ctx, kv, l, c)
		c.silence()
		f.metrics.lead(false)
		f.spread.add(-1)
		if ctx.Err() != nil {
			l.release(context.WithoutCancel(ctx))
			return nil
		}
		own = l.nonce
	}
}

// bind waits for the bucket; nil means that ctx ended.
func (f *Fetcher) bind(ctx context.Context) keyValue {
	var c complaint
	for {
		callCtx, cancel := context.WithTimeout(ctx, f.timing.call)
		kv, err := f.bus.KeyValue(callCtx, proto.BucketCheckpoints)
		cancel()
		if err == nil {
			c.over(f.logger, "the bucket of checkpoints is there")
			return kv
		}
		if ctx.Err() != nil {
			return nil
		}
		f.setReady(err)
		c.raise(f.logger, slog.LevelWarn, "waiting for the bucket of checkpoints; `collector provision` creates it", err)
		if !sleep(ctx, nil, time.Second) {
			return nil
		}
	}
}

// lead is the active state: from the lease's acquisition to its loss or to ctx's end. It returns when
// everything it started has ended.
func (f *Fetcher) lead(ctx context.Context, kv keyValue, l *lease, c *census) {
	// held outlives ctx by the grace, so that the page in work can be finished and recorded.
	held, drop := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.keep(held); err != nil && ctx.Err() == nil {
			f.logger.Warn("the lease is lost, standing by", "reason", err)
			drop(err)
		}
	})
	if c != nil {
		if !c.enter(held, ctx.Done()) {
			drop(fault.ErrShuttingDown)
			wg.Wait()
			return
		}
		wg.Go(func() { c.keep(held) })
	}
	wg.Go(func() {
		if sleep(held, ctx.Done(), 0) {
			sleep(held, nil, f.timing.grace)
		}
		drop(fault.ErrShuttingDown)
	})
	f.active(held, ctx.Done(), kv, l, c)
	drop(fault.ErrShuttingDown)
	wg.Wait()
}

// active runs sessions until the lease is lost or stop closes. ctx is the lease's, shares what the quota is divided by.
func (f *Fetcher) active(ctx context.Context, stop <-chan struct{}, kv keyValue, l *lease, shares *census) {
	clock := &remoteClock{wall: f.wall}
	f.begun.Do(f.sayInitialised)
	f.logger.Warn(waitFirst)
	setup := f.newSetup(stop, clock)
	defer setup.failures.forget()
	if !shares.awaitTurn(ctx, stop) || !setup.ensure(ctx) {
		return
	}
	var c complaint
	defer c.forget()
	var before *proto.Checkpoint // what a command has replaced
	for ctx.Err() == nil && !stopped(stop) {
		s, err := f.open(ctx, setup, kv, l)
		if err == nil {
			f.changed(before, s.record)
			before = nil
			c.over(f.logger, "the record is readable")
			f.setReady(nil)
			err = s.run(ctx)
		}
		switch {
		case errors.Is(err, errRecordChanged):
			if s != nil {
				last := s.record.read()
				before = &last
			}
		case err == nil || ending(ctx, err):
			return
		default:
			f.setReady(err)
			if c.raiseNamed(f.logger, slog.LevelError, "the position cannot be read", err) {
				f.logger.Info("Sleeping 60 sec before retry pre-pull")
			}
			if !sleep(ctx, stop, f.timing.recordRetry) {
				return
			}
		}
	}
}

// ending tells failures of a pull from the end of this holder's work.
func ending(ctx context.Context, err error) bool {
	return ctx.Err() != nil || fault.IsShuttingDown(err) || errors.Is(err, errFenced) || errors.Is(err, errRecordChanged)
}

// Ready is nil while the fetcher does its work: standing by, or active after a successful set-up.
func (f *Fetcher) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.notReady != nil {
		return fmt.Errorf("fetcher %s: %w", f.source, f.notReady)
	}
	return nil
}

func (f *Fetcher) setReady(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notReady = err
}

// nextPullID returns the pull's id, epoch milliseconds, different from every other of this process.
func (f *Fetcher) nextPullID() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastPull = max(f.wall().UnixMilli(), f.lastPull+1)
	return f.lastPull
}

func lowered(texts []string) []string {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		out = append(out, strings.ToLower(t))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
