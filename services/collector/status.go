package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
	"defenderiot/services/dedup"
	"defenderiot/services/fetcher"
)

const (
	statusTimeout = 15 * time.Second
	watchPeriod   = 2 * time.Second
)

// Status is where everything stands, for all replicas together. Checkpoint, Sources, Events, Outputs, Streams and the
// dead letters are read from streams, buckets and ledgers alone, so they are the same after a restart of anything. The
// rest is what the running processes tell by their status records, of moments ago. Its JSON names are stable.
type Status struct {
	Time time.Time `json:"time"`
	// Checkpoint is the source's; with several, the one that is furthest behind.
	Checkpoint *SourceStatus            `json:"checkpoint"`
	Sources    map[string]*SourceStatus `json:"sources"`
	Events     EventStatus              `json:"events"`
	Outputs    map[string]*OutputStatus `json:"outputs"`
	// DeadLetters counts what waits for a decision.
	DeadLetters    uint64                   `json:"dead_letters"`
	LastDeadLetter *LetterStatus            `json:"last_dead_letter"`
	Streams        map[string]*StreamStatus `json:"streams"`
	// Replays are the jobs that are running.
	Replays []string `json:"replays"`

	Inputs       map[string]*InputStatus `json:"inputs"`
	Certificates []CertificateStatus     `json:"certificates"`
	Processes    []ProcessStatus         `json:"processes"`
	Errors       []ErrorStatus           `json:"errors"`
	// Loss is what the bus has lost last, or was restored from; absent if nothing ever.
	Loss *proto.Loss `json:"loss,omitempty"`
	// Problems are what somebody has to look at, the most urgent first.
	Problems []Problem `json:"problems"`

	now       time.Time // the server's
	unnoticed error     // why the records of the processes are not known, or not all
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
	// Oldest is how long the first of those that wait has been in RAW.
	Oldest          float64 `json:"oldest_waiting_seconds"`
	UniquePerSecond float64 `json:"unique_per_second"`
}

// OutputStatus is the ledger of one output, and what its senders tell.
type OutputStatus struct {
	Confirmed   uint64      `json:"confirmed"`
	Pending     uint64      `json:"pending"`     // in UNIQUE and not confirmed
	Unconfirmed uint64      `json:"unconfirmed"` // of these, written and not confirmed
	Resent      uint64      `json:"resent"`      // sent again although they may have arrived
	Dead        uint64      `json:"dead"`
	Rotations   uint64      `json:"rotations"`
	Proof       proto.Proof `json:"proof"`
	Senders     int         `json:"senders"`
	// Oldest is how long the first alert in UNIQUE has waited that is not confirmed.
	Oldest             float64 `json:"oldest_unconfirmed_seconds"`
	ConfirmedPerSecond float64 `json:"confirmed_per_second"`
	// Delay is from an alert's start to its confirmation, the mean of the last minute; nil when none was confirmed.
	Delay *float64 `json:"alert_to_confirmation_seconds"`
	// Reachable: a sender reached the endpoint when it last tried; nil when none is heard of.
	Reachable *bool `json:"reachable"`
}

// StreamStatus is how much a stream holds.
type StreamStatus struct {
	Messages uint64  `json:"messages"`
	Bytes    uint64  `json:"bytes"`
	Limit    uint64  `json:"limit_bytes"`
	Fill     float64 `json:"fill_ratio"`
	// Lost counts messages that the bus has lost, as far as they can be counted; until a day after everything is read again.
	Lost uint64 `json:"lost_messages"`
}

// LetterStatus is the newest dead letter.
type LetterStatus struct {
	Time   time.Time `json:"time"`
	Stage  string    `json:"stage"`
	Output string    `json:"output,omitempty"`
	Reason string    `json:"reason"`
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "where everything stands", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), asJSON, watch) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every two seconds, on the whole terminal where there is one")
	return cmd
}

func (a *app) status(ctx context.Context, asJSON, watch bool) error {
	c, _, err := a.load()
	if err != nil {
		return err
	}
	if screen := a.screen(); watch && !asJSON && screen != nil {
		return screen.watch(ctx, c)
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
			_, err = fmt.Fprint(a.stdout, s.view(0, 0).text(0, a.screen().colours()))
		}
		if err != nil || !watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPeriod):
		}
	}
}

// ReadStatus reads the status of the pipeline that c configures. An error is one of the bus; what the processes tell
// is left out where it cannot be read, and Problems say so.
func ReadStatus(ctx context.Context, b *bus.Bus, c *config.Config) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := &Status{
		Time: time.Now().UTC(), Sources: map[string]*SourceStatus{}, Outputs: map[string]*OutputStatus{},
		Streams: map[string]*StreamStatus{}, Inputs: map[string]*InputStatus{},
		Certificates: []CertificateStatus{}, Processes: []ProcessStatus{}, Errors: []ErrorStatus{}, Problems: []Problem{}, Replays: []string{},
	}
	var err error
	if s.Loss, _, err = dedup.ReadLoss(ctx, b); err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, *bus.Bus, *config.Config) error{s.readSources, s.readEvents, s.readOutputs, s.readStreams} {
		if err := read(ctx, b, c); err != nil {
			return nil, err
		}
	}
	s.readProcesses(ctx, b, c)
	s.judge(c)
	return s, nil
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

func (s *Status) readEvents(ctx context.Context, b *bus.Bus, _ *config.Config) error {
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
	s.now = unique.CachedInfo().TimeStamp
	s.DeadLetters = letters.State.Msgs
	s.Events.Received = raw.CachedInfo().State.LastSeq
	s.Events.Unique = unique.CachedInfo().State.LastSeq
	s.Events.Waiting = info.NumPending + uint64(info.NumAckPending)
	buried := uint64(len(letters.State.Subjects)) // one letter a subject
	if known := s.Events.Unique + s.Events.Waiting + buried; known < s.Events.Received {
		s.Events.Duplicates = s.Events.Received - known
	}
	if s.Events.Waiting > 0 {
		if s.Events.Oldest, err = s.waited(ctx, b, proto.StreamRaw, info.AckFloor.Stream+1); err != nil {
			return err
		}
	}
	return s.readLastLetter(ctx, dead, letters.State)
}

// waited is for how many seconds the message at sequence, or the next one that is there, has been in the stream.
func (s *Status) waited(ctx context.Context, b *bus.Bus, stream string, sequence uint64) (float64, error) {
	at, found, err := b.StoredAt(ctx, stream, sequence)
	if err != nil || !found {
		return 0, err
	}
	return max(0, s.now.Sub(at).Seconds()), nil
}

func (s *Status) readLastLetter(ctx context.Context, dead jetstream.Stream, state jetstream.StreamState) error {
	if state.Msgs == 0 {
		return nil
	}
	m, err := dead.GetMsg(ctx, state.LastSeq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // settled just now, or the last one was
	}
	if err != nil {
		return fmt.Errorf("the last dead letter: %w", err)
	}
	if d, err := proto.DecodeDeadLetter(m.Data); err == nil { // `dead show` says what is wrong with it
		s.LastDeadLetter = &LetterStatus{Time: m.Time, Stage: d.Stage, Output: d.Output, Reason: d.Reason}
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
		o := &OutputStatus{
			Confirmed: view.Counters.Confirmed, Unconfirmed: uint64(view.Unconfirmed()),
			Pending: info.NumPending + uint64(info.NumAckPending),
			Resent:  view.Counters.Resent, Dead: view.Counters.Dead, Rotations: view.Counters.Rotations,
			Proof: view.Proof, Senders: view.Senders,
		}
		if first := view.FirstUnconfirmed(); first <= s.Events.Unique {
			if o.Oldest, err = s.waited(ctx, b, proto.StreamUnique, first); err != nil {
				return err
			}
		}
		s.Outputs[name] = o
	}
	return nil
}

func (s *Status) readStreams(ctx context.Context, b *bus.Bus, _ *config.Config) error {
	for _, name := range []string{proto.StreamRaw, proto.StreamUnique, proto.StreamDead} {
		v, err := b.Volume(ctx, name)
		if err != nil {
			return err
		}
		s.Streams[name] = &StreamStatus{Messages: v.Messages, Bytes: v.Bytes, Limit: v.Limit, Fill: v.Fill()}
		if dedup.ShowsLoss(s.Loss, s.Time) {
			s.Streams[name].Lost = s.Loss.Messages[name]
		}
	}
	jobs, err := replay.Jobs(ctx, b)
	if err != nil && len(jobs) == 0 {
		return err
	}
	for _, j := range jobs {
		if j.State == proto.JobRunning {
			s.Replays = append(s.Replays, j.ID)
		}
	}
	return nil
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
