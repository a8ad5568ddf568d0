package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/process"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
	"defenderiot/services/dedup"
	"defenderiot/services/fetcher"
	"defenderiot/services/sender"
)

const (
	// memoryLimit is the heap that the one process aims at when GOMEMLIMIT does not say otherwise. Measured:
	// with less the collector spends its time fighting the server's block cache.
	memoryLimit = 264 << 20
	// gcPercent lets the heap grow freely below that limit, unless GOGC says otherwise.
	gcPercent = 200
	busClose  = 500 * time.Millisecond
	// serverClose, the sender's grace, internalevent.FlushTime and busClose are the time in which the one process
	// stops.
	serverClose = 2 * time.Second
)

// Pipeline is all services on one bus in one process:
//
//	embedded server (or bus.url) <── provision
//	     ├── fetchers, one for each enabled input
//	     ├── dedup, and the keeper that purges
//	     └── sender, with all outputs
type Pipeline struct {
	Process *process.Process
	// BusDir is the embedded server's folder.
	BusDir string
	// KnownState is the folder where the known collector may have left its state; "" for none.
	KnownState string
	// Console is what the outputs console and stdout write to.
	Console io.Writer

	server *embedded.Server // nil with bus.url
}

// service is what the pipeline runs.
type service struct {
	name string
	run  func(context.Context) error
}

// Run starts everything, works until ctx ends, and then stops in order: nothing more is taken, what was
// written is confirmed, the bus is closed last. It takes at most 8 s for that. Errors are those of the start; once
// everything runs, remote trouble never ends it, and only an embedded server that cannot be restarted does
// ([embedded.ErrStuck]): a new process can go on where this one was.
func (p *Pipeline) Run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	connect, server, stop, err := p.openBus(ctx, end)
	if err != nil {
		return err
	}
	defer stop()
	own, err := connect("internal", bus.UserCollector)
	if err != nil {
		return err
	}
	services, release, err := p.services(ctx, connect, server)
	if err != nil {
		return err
	}
	defer release()
	defer p.Process.Report(ctx, own, process.InputProcess, process.OutputProcess)()
	if server != nil {
		if err := server.Begin(); err != nil {
			p.Process.Logger.Warn("that the collector runs cannot be noted in the state folder: after a kill, the next start does not try first what was in hand", "error", err)
		}
	}
	p.Process.Logger.Info("collector runs", "instance", p.Process.Instance, "telemetry", p.Process.Telemetry.Addr())
	errs := make([]error, len(services))
	var group sync.WaitGroup
	for i, s := range services {
		group.Go(func() {
			if err := s.run(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.name, err)
			}
		})
	}
	group.Wait()
	p.Process.Logger.Info("collector stops")
	if cause := context.Cause(ctx); errors.Is(cause, embedded.ErrStuck) {
		return cause
	}
	return errors.Join(errs...)
}

// openBus starts the embedded server and provisions it, or waits for the configured server. connect gives
// a connection of its own to each service, because reading one is a single goroutine's work; on the embedded server
// each is the service's own user as well, so that a missing permission shows here, too. server is nil without one; end is
// called when it cannot go on in this process.
func (p *Pipeline) openBus(ctx context.Context, end context.CancelCauseFunc) (connect func(name, user string) (*bus.Bus, error), server *embedded.Server, stop func(), err error) {
	c := p.Process.Config
	var opened []*bus.Bus
	closeAll := func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), busClose)
		defer cancel()
		for _, b := range opened {
			_ = b.Close(limit)
		}
	}
	if !c.Bus.IsEmbedded() {
		first, err := p.Process.Bound(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		opened = append(opened, first)
		return func(name, _ string) (*bus.Bus, error) {
			b, err := process.Connect(c, p.Process.Instance+"/"+name, p.Process.Logger)
			if err == nil {
				opened = append(opened, b)
			}
			return b, err
		}, nil, closeAll, nil
	}
	server, err = embedded.Start(embedded.Settings{
		Dir: p.BusDir, Listen: c.Bus.Embedded.Listen, SyncInterval: c.Bus.Embedded.Sync.Interval, Logger: p.Process.Logger, Stuck: end,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	p.server = server
	if !c.Bus.Embedded.Sync.Always() {
		p.Process.Logger.Warn("bus.embedded.sync is not always: a power failure loses what was acknowledged within the interval", "interval", c.Bus.Embedded.Sync.Interval)
	}
	stop = func() {
		closeAll()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverClose)
		defer cancel()
		if err := server.Shutdown(limit); err != nil && !errors.Is(err, embedded.ErrStuck) {
			p.Process.Logger.Warn("the embedded server did not stop in time and ends with the process; its next start takes longer", "error", err)
		}
	}
	connect = func(name, user string) (*bus.Bus, error) {
		b, err := bus.Connect(server.Settings(user, p.Process.Instance+"/"+name, p.Process.Logger))
		if err == nil {
			opened = append(opened, b)
		}
		return b, err
	}
	b, err := connect("provision", bus.UserAdmin)
	if err == nil {
		err = provision(ctx, b, process.Topology(c), false, p.Process.Logger)
	}
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	p.Process.Telemetry.Ready("bus", func() error {
		if err := server.Err(); err != nil {
			return err
		}
		return b.Storing()
	})
	return connect, server, stop, nil
}

// services makes everything that runs. server is the embedded one, if there is one.
func (p *Pipeline) services(ctx context.Context, connect func(name, user string) (*bus.Bus, error), server *embedded.Server) (services []service, release func(), err error) {
	t := p.Process.Telemetry
	var buses [3]*bus.Bus
	for i, name := range []string{bus.UserFetcher, bus.UserDedup, bus.UserSender} {
		if buses[i], err = connect(name, name); err != nil {
			return nil, nil, err
		}
	}
	if err := p.records(ctx, buses[0]); err != nil {
		return nil, nil, err
	}
	if err := p.verify(ctx, buses[1]); err != nil {
		return nil, nil, err
	}
	fetchers, release, err := fetcher.Configured(p.Process.Config, fetcher.Runtime{
		Bus: buses[0], Logger: t.Logger, Meter: t.Meter, Tracer: t.Tracer, Instance: p.Process.Instance,
		Alone: p.Process.Config.Bus.IsEmbedded(),
	})
	if err != nil {
		return nil, nil, err
	}
	for i, f := range fetchers {
		name := fmt.Sprintf("fetcher-%d", i)
		t.Ready(name, f.Ready)
		services = append(services, service{name, f.Run})
	}
	interrupted := server != nil && server.Interrupted()
	d, err1 := dedup.New(dedup.Options{Bus: buses[1], Logger: t.Logger, Meter: t.Meter, Tracer: t.Tracer, Interrupted: interrupted})
	keeper, err2 := dedup.NewKeeper(buses[1], process.Topology(p.Process.Config), t.Logger, t.Meter)
	s, err3 := sender.New(sender.Options{
		Bus: buses[2], Outputs: sender.Configured(p.Process.Config, p.Console), Instance: p.Process.Instance,
		Logger: t.Logger, Meter: t.Meter, Tracer: t.Tracer, Collector: p.Process.Collector, Interrupted: interrupted,
	})
	if err := errors.Join(err1, err2, err3); err != nil {
		release()
		return nil, nil, err
	}
	if server != nil {
		keeper.Room = server.Room
	}
	t.Ready("sender", s.Ready)
	services = append(services, service{"dedup", d.Run}, service{"keeper", keeper.Run}, service{"sender", s.Run})
	for name, o := range p.Process.Config.Outputs {
		if !o.Config.VerifyCertificate && o.HostPort() != "" {
			t.Logger.Warn("the endpoint's certificate is not verified, so events can go to anyone in the path; set verify_certificate to true", "output", name)
		}
	}
	return services, release, nil
}

// records makes sure that every position can be gone on from, before anything starts.
func (p *Pipeline) records(ctx context.Context, b *bus.Bus) error {
	if err := fetcher.CheckRecords(ctx, b, p.Process.Config); err != nil || p.KnownState == "" {
		return err
	}
	kv, err := b.KeyValue(ctx, proto.BucketCheckpoints)
	if err != nil {
		return err
	}
	return importStates(ctx, kv, p.Process.Config, p.KnownState, p.Process.Logger)
}

// verify has everything read again when the state folder is a copy, such as a restored backup: what was read and
// delivered after it was made is not in it.
func (p *Pipeline) verify(ctx context.Context, b *bus.Bus) error {
	if p.server == nil || !p.server.Copied() {
		return nil
	}
	if err := dedup.Restored(ctx, b); err != nil {
		return fmt.Errorf("the state folder is a copy: %w", err)
	}
	p.Process.Logger.Warn("the state folder is a copy, such as a restored backup: every input is read again from its start, and what the copy knows as sent is not sent again")
	return p.server.TakeOver()
}

// provision provisions and names what is left over.
func provision(ctx context.Context, b *bus.Bus, t bus.Topology, prune bool, logger *slog.Logger) error {
	leftover, err := b.Provision(ctx, t, prune)
	if err != nil {
		return err
	}
	if err := replay.Sweep(ctx, b); err != nil {
		logger.Warn("what ended replay jobs have left behind was not removed", "error", err)
	}
	for _, output := range leftover {
		logger.Warn("an output that is no longer configured still keeps its position and holds back the purging of UNIQUE; remove it with `collector provision --prune`", "output", output)
	}
	return nil
}

// limitMemory sets the runtime's soft limit and its pace below it, unless the operator did.
func limitMemory(logger *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
		logger.Debug("memory limit set", "bytes", memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
