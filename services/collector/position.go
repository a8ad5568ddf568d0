package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/fetcher"
)

const (
	// answerTime is how long a command waits for the server.
	answerTime = 5 * time.Second
	// changeTime bounds reading and changing a record.
	changeTime = 30 * time.Second
)

// positions is the records of the sources as the operator's commands reach them.
type positions struct {
	kv jetstream.KeyValue
	// alone: nothing ran on the state folder, so the command opened it and no fetcher sees it now.
	alone bool
	close func()
}

// positions opens the bucket of records: on bus.url, on the collector that runs on the state folder, or,
// where none runs, by opening the folder itself. With create it is made if it is not there.
func (a *app) positions(ctx context.Context, c *config.Config, create bool) (*positions, error) {
	b, logger, err := a.connect(c, slog.LevelError)
	if err == nil {
		if err = answers(ctx, b); err == nil {
			return open(ctx, b, false, func() { _ = b.Close(context.WithoutCancel(ctx)) })
		}
		_ = b.Close(context.WithoutCancel(ctx))
	}
	if !c.Bus.IsEmbedded() {
		return nil, err
	}
	dir := process.BusDir(c)
	if _, statErr := os.Stat(filepath.Join(dir, "jetstream")); statErr != nil && !create {
		return nil, err // nothing runs and nothing is there
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	server, err := embedded.Start(embedded.Settings{Dir: dir, Listen: c.Bus.Embedded.Listen, SyncInterval: c.Bus.Embedded.Sync.Interval, Logger: logger})
	if err != nil {
		return nil, err
	}
	stop := func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverClose)
		defer cancel()
		_ = server.Shutdown(end) // what it acknowledged is on disk
	}
	to := server.Connection()
	b, err = bus.Connect(bus.Settings{InProcess: server.InProcess(), User: to.User, Password: to.Secret(), Name: process.NewInstance(), Logger: logger})
	if err != nil {
		stop()
		return nil, err
	}
	stopAll := func() { _ = b.Close(context.WithoutCancel(ctx)); stop() }
	if create {
		if err := provision(ctx, b, process.Topology(c), false, logger); err != nil {
			stopAll()
			return nil, err
		}
	}
	return open(ctx, b, true, stopAll)
}

func open(ctx context.Context, b *bus.Bus, alone bool, stop func()) (*positions, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	kv, err := b.KeyValue(ctx, proto.BucketCheckpoints)
	if err != nil {
		stop()
		return nil, fault.WithHint(err, "`collector provision` creates the buckets; with the embedded server, `collector run` does")
	}
	return &positions{kv: kv, alone: alone, close: stop}, nil
}

// answers waits a moment for the server.
func answers(ctx context.Context, b *bus.Bus) error {
	deadline := time.Now().Add(answerTime)
	for b.Connected() != nil {
		if time.Now().After(deadline) {
			return fault.WithHint(errors.New("the bus does not answer"), "is the server running, and are bus.url, bus.user and bus.password right?")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// base is what a change starts from.
type base struct {
	record   *proto.Checkpoint // nil: there is none
	revision uint64
	// damaged: the record is not readable, and record is the newest earlier revision that is.
	damaged bool
}

// read returns what is there. A record of a newer version is an error, and so is a damaged one without an
// earlier revision that can be read.
func (p *positions) read(ctx context.Context, source proto.Source) (base, error) {
	record, entry, err := fetcher.ReadRecord(ctx, p.kv, source)
	switch {
	case err == nil:
		return base{record: record, revision: entry.Revision()}, nil
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return base{}, nil
	case !errors.Is(err, proto.ErrMalformed) || errors.Is(err, proto.ErrNewerMajor):
		return base{}, err
	}
	b := base{revision: entry.Revision(), damaged: true}
	earlier, historyErr := p.kv.History(ctx, proto.RecordKey(source))
	if historyErr != nil {
		return base{}, errors.Join(err, historyErr)
	}
	for _, e := range earlier { // oldest first
		if c, err := proto.DecodeCheckpoint(e.Value()); err == nil {
			b.record = c
		}
	}
	if b.record == nil {
		return base{}, fault.WithHint(err, "no earlier revision is readable either: restore the state from a backup, or remove the key "+proto.RecordKey(source)+" from the bucket checkpoints to begin at start_time_in_utc")
	}
	return b, nil
}

// change stores what next makes of the record, by compare-and-set, and returns both. next is called again
// with what is there then whenever a fetcher was faster. An unknown outcome is settled before anything is
// stored a second time: a new generation that was counted twice would send everything twice.
func (p *positions) change(ctx context.Context, source proto.Source, next func(base) (*proto.Checkpoint, error)) (before base, after *proto.Checkpoint, revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	for {
		if before, err = p.read(ctx, source); err != nil {
			return before, nil, 0, err
		}
		if after, err = next(before); err != nil {
			return before, nil, 0, err
		}
		revision, err = p.store(ctx, source, after, before.revision)
		if !errors.Is(err, errOvertaken) {
			return before, after, revision, err
		}
	}
}

// errOvertaken: somebody else has written the record, this write is not stored.
var errOvertaken = errors.New("the record has moved meanwhile")

func (p *positions) store(ctx context.Context, source proto.Source, c *proto.Checkpoint, over uint64) (uint64, error) {
	data, err := c.Encode()
	if err != nil {
		return 0, err
	}
	key, unknown := proto.RecordKey(source), false
	for {
		var revision uint64
		callCtx, cancel := context.WithTimeout(ctx, answerTime)
		if over == 0 {
			revision, err = p.kv.Create(callCtx, key, data)
		} else {
			revision, err = p.kv.Update(callCtx, key, data, over)
		}
		cancel()
		if err == nil {
			return revision, nil
		}
		if errors.Is(err, bus.ErrRefused) {
			return 0, err
		}
		if errors.Is(err, jetstream.ErrKeyExists) {
			if !unknown {
				return 0, errOvertaken
			}
			// Perhaps by the first try itself, and a fetcher has moved on since.
			return p.find(ctx, key, data, over)
		}
		// The same revision is named again, so at most one of the tries is stored.
		unknown = true
		select {
		case <-ctx.Done():
			return 0, fault.WithHint(fmt.Errorf("it is not known whether the record was stored: %w", err), "see `collector checkpoint show` before trying again")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// find looks for a write of data after revision over among the revisions that are kept.
func (p *positions) find(ctx context.Context, key string, data []byte, over uint64) (uint64, error) {
	history, err := p.kv.History(ctx, key)
	if err != nil {
		return 0, fault.WithHint(fmt.Errorf("it is not known whether the record was stored: %w", err), "see `collector checkpoint show` before trying again")
	}
	for _, e := range history {
		if e.Revision() > over && bytes.Equal(e.Value(), data) {
			return e.Revision(), nil
		}
	}
	return 0, errOvertaken
}

// one is the source that a command is for: the only one, or the named input's.
func one(c *config.Config, input string) (proto.Source, error) {
	sources := fetcher.Sources(c)
	names := fetcher.Enabled(c)
	for i, s := range sources {
		if s.Input == input || input == "" && len(sources) == 1 {
			return sources[i], nil
		}
	}
	hint := fmt.Sprintf("name one of the enabled inputs with --input: %v", names)
	if input == "" {
		return proto.Source{}, fault.WithHint(fmt.Errorf("%d inputs are enabled", len(sources)), hint)
	}
	return proto.Source{}, fault.WithHint(fmt.Errorf("no input %s is enabled", input), hint)
}
