package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
	"defenderiot/services/dedup"
	"defenderiot/services/fetcher"
)

const statusTimeout = 15 * time.Second

// Status is where everything stands, read from streams, buckets and ledgers alone: the same after a
// restart of anything, and for all replicas together. Its JSON names are stable.
type Status struct {
	Time time.Time `json:"time"`
	// Checkpoint is the source's; with several, the one that is furthest behind.
	Checkpoint *SourceStatus            `json:"checkpoint"`
	Sources    map[string]*SourceStatus `json:"sources"`
	Events     EventStatus              `json:"events"`
	Outputs    map[string]*OutputStatus `json:"outputs"`
	// DeadLetters counts what waits for a decision.
	DeadLetters uint64 `json:"dead_letters"`
	// Loss is what the bus has lost last, or was restored from; absent if nothing ever.
	Loss *proto.Loss `json:"loss,omitempty"`
}

// SourceStatus is the record of one source.
type SourceStatus struct {
	LastEventTime time.Time  `json:"last_event_time_in_utc"`
	StartTime     *time.Time `json:"start_time_in_utc"`
	Generation    uint64     `json:"generation"`
	Rescan        int        `json:"windows_to_read_again"`
}

// EventStatus counts alerts since the streams were created.
type EventStatus struct {
	Received   uint64 `json:"received"`   // rows that RAW acknowledged
	Duplicates uint64 `json:"duplicates"` // of these, sighted before
	Unique     uint64 `json:"unique"`     // of these, in UNIQUE
	Waiting    uint64 `json:"waiting"`    // of these, not deduplicated yet
}

// OutputStatus is the ledger of one output.
type OutputStatus struct {
	Confirmed   uint64      `json:"confirmed"`
	Pending     uint64      `json:"pending"`     // in UNIQUE and not confirmed
	Unconfirmed uint64      `json:"unconfirmed"` // of these, written and not confirmed
	Resent      uint64      `json:"resent"`      // sent again although they may have arrived
	Dead        uint64      `json:"dead"`
	Rotations   uint64      `json:"rotations"`
	Proof       proto.Proof `json:"proof"`
	Senders     int         `json:"senders"`
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "where everything stands", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), asJSON, watch) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "print again every two seconds")
	return cmd
}

func (a *app) status(ctx context.Context, asJSON, watch bool) error {
	c, _, err := a.load()
	if err != nil {
		return err
	}
	b, _, err := a.connect(c, slog.LevelError)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	for {
		s, err := ReadStatus(ctx, b, c)
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(a.stdout)
			if !watch {
				enc.SetIndent("", "  ")
			}
			err = enc.Encode(s)
		} else {
			err = a.print(s)
		}
		if err != nil || !watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
	}
}

// ReadStatus reads the status of the pipeline that c configures.
func ReadStatus(ctx context.Context, b *bus.Bus, c *config.Config) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := &Status{Time: time.Now().UTC(), Sources: map[string]*SourceStatus{}, Outputs: map[string]*OutputStatus{}}
	if err := errors.Join(s.readSources(ctx, b, c), s.readEvents(ctx, b), s.readOutputs(ctx, b, c)); err != nil {
		return nil, err
	}
	var err error
	s.Loss, _, err = dedup.ReadLoss(ctx, b)
	return s, err
}

func (s *Status) readSources(ctx context.Context, b *bus.Bus, c *config.Config) error {
	kv, err := b.KeyValue(ctx, proto.BucketCheckpoints)
	if err != nil {
		return err
	}
	for _, name := range fetcher.Enabled(c) {
		source := proto.Source{Input: name, InputID: c.Inputs[name].ID, Service: fetcher.ServiceName}
		entry, err := kv.Get(ctx, proto.RecordKey(source))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("record of %s: %w", source, err)
		}
		record, err := proto.DecodeCheckpoint(entry.Value())
		if err != nil {
			return fmt.Errorf("record of %s: %w", source, err)
		}
		one := &SourceStatus{
			LastEventTime: record.LastEventTime, StartTime: record.StartTime, Generation: record.Generation, Rescan: len(record.Rescan),
		}
		s.Sources[source.String()] = one
		if s.Checkpoint == nil || one.LastEventTime.Before(s.Checkpoint.LastEventTime) {
			s.Checkpoint = one
		}
	}
	return nil
}

func (s *Status) readEvents(ctx context.Context, b *bus.Bus) error {
	raw, err := b.Stream(ctx, proto.StreamRaw)
	if err != nil {
		return fmt.Errorf("stream RAW: %w", err)
	}
	consumer, err := raw.Consumer(ctx, proto.ConsumerDedup)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", proto.ConsumerDedup, err)
	}
	unique, err := b.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return fmt.Errorf("stream UNIQUE: %w", err)
	}
	dead, err := b.Stream(ctx, proto.StreamDead)
	if err != nil {
		return fmt.Errorf("stream DEAD: %w", err)
	}
	letters, err := dead.Info(ctx, jetstream.WithSubjectFilter(proto.DeadPrefix(proto.StageDedup, "")+".*"))
	if err != nil {
		return fmt.Errorf("stream DEAD: %w", err)
	}
	info := consumer.CachedInfo()
	s.DeadLetters = letters.State.Msgs
	s.Events.Received = raw.CachedInfo().State.LastSeq
	s.Events.Unique = unique.CachedInfo().State.LastSeq
	s.Events.Waiting = info.NumPending + uint64(info.NumAckPending)
	buried := uint64(len(letters.State.Subjects)) // one letter a subject
	if known := s.Events.Unique + s.Events.Waiting + buried; known < s.Events.Received {
		s.Events.Duplicates = s.Events.Received - known
	}
	return nil
}

func (s *Status) readOutputs(ctx context.Context, b *bus.Bus, c *config.Config) error {
	for name := range c.Outputs {
		view, err := ledger.Read(ctx, b, name)
		if err != nil {
			return err
		}
		consumer, err := b.Consumer(ctx, proto.StreamUnique, proto.OutputConsumer(name))
		if err != nil {
			return fmt.Errorf("consumer of output %s: %w", name, err)
		}
		info := consumer.CachedInfo()
		s.Outputs[name] = &OutputStatus{
			Confirmed: view.Counters.Confirmed, Unconfirmed: uint64(view.Unconfirmed()),
			Pending: info.NumPending + uint64(info.NumAckPending),
			Resent:  view.Counters.Resent, Dead: view.Counters.Dead, Rotations: view.Counters.Rotations,
			Proof: view.Proof, Senders: view.Senders,
		}
	}
	return nil
}

func (a *app) print(s *Status) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	if s.Checkpoint == nil {
		fmt.Fprintln(w, "checkpoint\tnone yet")
	}
	for _, name := range keys(s.Sources) {
		record := s.Sources[name]
		fmt.Fprintf(w, "checkpoint\t%s\t%s (%s ago), generation %d\n", name,
			record.LastEventTime.Format(time.RFC3339), s.Time.Sub(record.LastEventTime).Round(time.Second), record.Generation)
	}
	fmt.Fprintf(w, "events\treceived %d\tunique %d, duplicates %d, waiting %d\n", s.Events.Received, s.Events.Unique, s.Events.Duplicates, s.Events.Waiting)
	for _, name := range keys(s.Outputs) {
		o := s.Outputs[name]
		fmt.Fprintf(w, "output\t%s\tconfirmed %d, pending %d, unconfirmed %d, possibly resent %d, proof %s\n",
			name, o.Confirmed, o.Pending, o.Unconfirmed, o.Resent, o.Proof)
	}
	fmt.Fprintf(w, "dead letters\t%d\n", s.DeadLetters)
	if l := s.Loss; l != nil {
		what := "lost"
		if l.Restored {
			what = "restored"
		}
		fmt.Fprintf(w, "%s\t%s: %s\treleased %d, no longer in Azure %d\n", what, l.Noticed.Format(time.RFC3339), l.State, l.Released, l.Gone)
	}
	return w.Flush()
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
