package collector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/faultpoint"
	"defenderiot/proto"
	"defenderiot/services/fetcher"
)

// importing is what `checkpoint import` is asked for.
type importing struct {
	file, input    string
	resend, dryRun bool
}

func (a *app) importState(ctx context.Context, i importing) error {
	c, _, err := a.load()
	if err != nil {
		return err
	}
	source, err := stateSource(c, i)
	if err != nil {
		return err
	}
	state, err := readKnownState(i.file, time.Now())
	if err != nil {
		return err
	}
	input := c.Inputs[source.Input]
	for file, n := range undeliveredFiles(filepath.Dir(i.file)) {
		fmt.Fprintf(a.stderr, "warning: %s beside it holds %d messages that the known collector has not delivered; they count as sent. Let it deliver them first, or take a time before them with `collector checkpoint reset --to TIME --resend`\n", file, n)
	}
	if start := input.Services.IoTSecurityAlerts.StartTimeInUTC; !start.IsZero() && !start.Time.Equal(state.start) {
		recorded := "missing"
		if !state.start.IsZero() {
			recorded = moment(state.start)
		}
		fmt.Fprintf(a.stderr, "warning: the file's start_time_in_utc is %s and the configured one %s: a changed start sends everything from there again\n", recorded, start)
	}
	if state.skipToken {
		fmt.Fprintln(a.stderr, "warning: the known collector was stopped between two pages; its skip_token is not taken over, everything from last_event_time_in_utc on is read anew")
	}
	p, err := a.positions(ctx, c, !i.dryRun)
	if err != nil {
		return err
	}
	defer p.close()
	next := func(b base) (*proto.Checkpoint, error) {
		record := state.record(input)
		if b.record == nil {
			return &record, nil
		}
		if !i.resend {
			return nil, fault.WithHint(fmt.Errorf("there is a record of %s already, of generation %d with position %s", source, b.record.Generation, moment(b.record.LastEventTime)),
				"this collector has gone on by itself, and an import would change nothing; --resend replaces it by a new generation, and sends what starts at or after the file's last event, again if need be")
		}
		record.Generation = b.record.Generation + 1
		record.Replaced = append(b.record.Replaced[:len(b.record.Replaced):len(b.record.Replaced)], proto.ReplacedGeneration{Generation: b.record.Generation, ReplacedAt: time.Now().UTC()})
		return &record, nil
	}
	if i.dryRun {
		b, err := p.read(ctx, source)
		if err != nil {
			return err
		}
		after, err := next(b)
		if err != nil {
			return err
		}
		return a.printChange(source, b, after, "no: --dry-run")
	}
	before, after, revision, err := p.change(ctx, source, next)
	if err != nil {
		return err
	}
	return a.printChange(source, before, after, fmt.Sprintf("revision %d; %s", revision, p.takenUp(ctx, source)))
}

// stateSource is the source that a file is imported for. Its name says so; a file of another name needs
// --input, and one that is known to be for something else is refused.
func stateSource(c *config.Config, i importing) (proto.Source, error) {
	name := filepath.Base(i.file)
	owner, what := ownerOf(c, name)
	if owner == nil && what != "" {
		return proto.Source{}, fault.WithHint(fmt.Errorf("%s is %s, not a fetch position", name, what), "import the input's own state file")
	}
	if owner != nil {
		if !c.Inputs[owner.Input].Enabled {
			return proto.Source{}, fmt.Errorf("%s is %s, which is not enabled", name, what)
		}
		if i.input != "" && i.input != owner.Input {
			return proto.Source{}, fmt.Errorf("%s is %s, not that of the input %s", name, what, i.input)
		}
		return *owner, nil
	}
	source, err := one(c, i.input)
	if err != nil {
		return source, err
	}
	if i.input == "" {
		return source, fault.WithHint(fmt.Errorf("%s is of no configured input: the state of %s is called %s", name, source, stateFile(source)),
			"was the input's name or id changed since? If the file is this input's nevertheless, say so with --input "+source.Input)
	}
	return source, nil
}

// importStates takes over the known collector's state from dir for every source that has no record yet. The
// record is stored in one step, after the file was read and understood, so a crash at any moment leaves
// either none, and the next start begins anew, or the whole one. The file is left as it is.
func importStates(ctx context.Context, kv jetstream.KeyValue, c *config.Config, dir string, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	for _, source := range fetcher.Sources(c) {
		path := filepath.Join(dir, stateFile(source))
		_, err := kv.Get(ctx, proto.RecordKey(source))
		if err == nil {
			continue
		}
		if !errors.Is(err, jetstream.ErrKeyNotFound) {
			return fmt.Errorf("record of %s: %w", source, err)
		}
		state, err := readKnownState(path, time.Now())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, errNoPosition):
			logger.Warn("the state file of the known collector holds no position; beginning as at a first start", "file", path)
			continue
		case err != nil:
			return err
		}
		faultpoint.Hit(faultpoint.StateRead)
		record := state.record(c.Inputs[source.Input])
		data, err := record.Encode()
		if err != nil {
			return err
		}
		if _, err := kv.Create(ctx, proto.RecordKey(source), data); errors.Is(err, jetstream.ErrKeyExists) {
			continue // another fetcher on the same bus has begun meanwhile
		} else if err != nil {
			return fmt.Errorf("store the imported record of %s: %w", source, err)
		}
		faultpoint.Hit(faultpoint.StateImported)
		logger.Info("the state of the known collector was imported: what it sent is not sent again", "source", source, "file", path, "record", string(data))
		for file, n := range undeliveredFiles(dir) {
			logger.Warn("messages that the known collector has not delivered are left in its emergency persistence and count as sent; to send them, `collector checkpoint reset --to TIME --resend` with a time before them", "file", file, "messages", n)
		}
	}
	return nil
}
