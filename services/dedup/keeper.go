package dedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/replay"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

const (
	keeperPeriod = 10 * time.Second
	// rawSlack is how much settled RAW may wait for its purge: purging in the middle of a storage block
	// rewrites the block, so it is done seldom.
	rawSlack      = 64 << 20
	rawPurgeEvery = time.Minute
	alarmShare    = 0.8
)

// Keeper removes what nobody needs any more: RAW up to dedup's ack floor, and of UNIQUE what is older
// than its retention and confirmed at every output. It purges by sequence only, so that several keepers
// do no harm, and it is what alarms when an output holds the others up.
type Keeper struct {
	// Room, if set before Run, is asked before each purge, which is left to a later round if it is an error: a purge is
	// what a full disk must not meet.
	Room func() error

	bus      *bus.Bus
	topology bus.Topology
	logger   *slog.Logger

	trouble *telemetry.Incident
	full    *telemetry.Incident
	rawAt   time.Time
	figures figures
	watch   *watch
	losses  *losses
}

// NewKeeper makes the keeper of the topology.
func NewKeeper(b *bus.Bus, t bus.Topology, logger *slog.Logger, m metric.Meter) (*Keeper, error) {
	k := &Keeper{
		bus: b, topology: t, logger: logger,
		trouble: telemetry.NewIncident(logger, "purging settled messages"),
		full:    telemetry.NewIncident(logger, "space in UNIQUE"),
		watch:   newWatch(b, t.UniqueRetention), losses: &losses{bus: b, logger: logger},
	}
	return k, k.figures.observe(m)
}

// Run keeps until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for ok := true; ok; ok = pause(ctx, keeperPeriod) {
		round, cancel := context.WithTimeout(ctx, time.Minute)
		err := k.round(round)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			k.trouble.Report(err)
		default:
			k.trouble.Resolve()
		}
	}
	return nil
}

// volumes takes what the streams hold, after the record that it is compared with. A server that was restarted meanwhile
// may have lost what the connection before had not: then all of it is taken anew. An error may leave streams out; then
// loaded says whether the record is there.
func (k *Keeper) volumes(ctx context.Context) (volumes map[string]bus.Volume, connection uint64, loaded bool, err error) {
	for {
		var errs []error
		connection = k.bus.Connections()
		if connection != k.watch.connection {
			_, err := ledger.Align(ctx, k.bus) // before it is compared
			errs = append(errs, err)
		}
		err := k.watch.load(ctx)
		errs = append(errs, err)
		loaded = err == nil
		volumes = map[string]bus.Volume{}
		for _, name := range bus.Streams() {
			v, err := k.bus.Volume(ctx, name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			volumes[name] = v
		}
		if ctx.Err() != nil || k.bus.Connections() == connection {
			return volumes, connection, loaded, errors.Join(errs...)
		}
	}
}

// round looks at everything once, so that its figures belong together, and purges.
func (k *Keeper) round(ctx context.Context) error {
	volumes, connection, loaded, err := k.volumes(ctx)
	errs := []error{err}
	var outputs map[string]time.Duration
	if unique, known := volumes[proto.StreamUnique]; known {
		var err error
		outputs, err = k.waiting(ctx, unique.LastSequence)
		errs = append(errs, err)
	}
	if loaded {
		errs = append(errs, k.compare(ctx, volumes, connection))
	}
	errs = append(errs, k.raw(ctx), k.unique(ctx))
	err = errors.Join(errs...)
	k.figures.put(volumes, outputs, err == nil)
	return err
}

func (k *Keeper) purge(ctx context.Context, stream string, below uint64) error {
	if k.Room != nil && k.Room() != nil {
		return nil // whoever knows of the room tells of it
	}
	return k.bus.PurgeBelow(ctx, stream, below)
}

// compare notices what was lost and brings it back, as far as one round can.
func (k *Keeper) compare(ctx context.Context, volumes map[string]bus.Volume, connection uint64) error {
	consumer, err := k.bus.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return err
	}
	floor, _, err := k.settled(ctx)
	if err != nil {
		return err
	}
	s := &sight{volumes: volumes, connection: connection, settled: map[string]uint64{
		proto.StreamRaw: consumer.CachedInfo().AckFloor.Stream, proto.StreamUnique: floor, hashesStream: volumes[hashesStream].LastSequence,
	}}
	lost, err := k.watch.look(ctx, s)
	if err != nil {
		return fmt.Errorf("look for what was lost: %w", err)
	}
	if s.copies() {
		if err := k.losses.report(ctx, lost); err != nil {
			return fmt.Errorf("report what was lost: %w", err)
		}
		// What began with one copy goes on, and nothing else does.
		lost, s.fresh, k.watch.audit = nil, false, nil
	}
	if err := k.losses.note(ctx, k.watch, s, lost); err != nil {
		return fmt.Errorf("note what was lost: %w", err)
	}
	lossErr := k.losses.round(ctx, k.watch, s)
	if lossErr != nil {
		lossErr = fmt.Errorf("bring back what was lost: %w", lossErr)
	}
	k.figures.lost(k.losses.shown())
	kept := k.watch.keep(ctx, s) // how far it has come, too, whatever stopped it
	outputs, err := k.outputConsumers(ctx)
	if err != nil {
		return errors.Join(lossErr, kept, err)
	}
	return errors.Join(lossErr, kept,
		k.watch.giveUp(ctx, proto.StreamRaw, s.settled[proto.StreamRaw], []string{proto.ConsumerDedup}),
		k.watch.giveUp(ctx, proto.StreamUnique, s.settled[proto.StreamUnique], outputs))
}

// outputConsumers are the consumers of the outputs on UNIQUE.
func (k *Keeper) outputConsumers(ctx context.Context) (consumers []string, err error) {
	stream, err := k.bus.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return nil, err
	}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if _, ours := proto.OutputOfConsumer(name); ours {
			consumers = append(consumers, name)
		}
	}
	return consumers, names.Err()
}

func (k *Keeper) raw(ctx context.Context) error {
	stream, err := k.bus.Stream(ctx, proto.StreamRaw)
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	consumer, err := stream.Consumer(ctx, proto.ConsumerDedup)
	if err != nil {
		return err
	}
	// Acknowledged means that UNIQUE, DEAD or an earlier claim has it, each of them stored before the
	// acknowledgement; so it does not matter that the floor itself lives in memory: it is never too high.
	floor := k.watch.purgeable(proto.StreamRaw, consumer.CachedInfo().AckFloor.Stream)
	if floor < state.FirstSeq || state.Msgs == 0 {
		return nil
	}
	settled := float64(state.Bytes) * float64(floor-state.FirstSeq+1) / float64(state.Msgs)
	if settled < rawSlack && time.Since(k.rawAt) < rawPurgeEvery {
		return nil
	}
	k.rawAt = time.Now()
	return k.purge(ctx, proto.StreamRaw, floor+1)
}

func (k *Keeper) unique(ctx context.Context) error {
	floor, slowest, err := k.settled(ctx)
	if err != nil {
		return err
	}
	stream, err := k.bus.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	fill := float64(state.Bytes) / float64(k.topology.UniqueBytes)
	switch {
	case fill >= alarmShare && floor < state.LastSeq:
		k.full.Report(fmt.Errorf("UNIQUE is more than %.0f %% full and %s is behind; when it is full, all outputs wait", 100*alarmShare, slowest))
	case fill >= alarmShare:
		k.full.Report(fmt.Errorf("UNIQUE is more than %.0f %% full of confirmed alerts; shorten bus.retention.unique or raise bus.limits.unique", 100*alarmShare))
	default:
		k.full.Resolve()
	}
	young, err := k.bus.SequenceAt(ctx, proto.StreamUnique, time.Now().Add(-k.topology.UniqueRetention))
	if err != nil {
		return err
	}
	// The last one stays: it says up to when everything before it was stored (proto.Watch.UniqueSince).
	below := min(young, floor+1, state.LastSeq)
	if below <= state.FirstSeq || state.Msgs == 0 {
		return nil
	}
	return k.purge(ctx, proto.StreamUnique, below)
}

// settled is the sequence up to which every output and every job that holds UNIQUE have confirmed, and which of them
// is furthest behind. Outputs that exist on the bus count, whether this configuration names them or not: what they have not
// confirmed must not be purged.
func (k *Keeper) settled(ctx context.Context) (floor uint64, slowest string, err error) {
	stream, err := k.bus.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return 0, "", err
	}
	floor = stream.CachedInfo().State.LastSeq
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		output, ours := proto.OutputOfConsumer(name)
		if !ours {
			continue
		}
		view, err := ledger.Read(ctx, k.bus, output)
		if err != nil {
			return 0, "", err
		}
		if view.Floor < floor || slowest == "" {
			floor, slowest = min(floor, view.Floor), fmt.Sprintf("output %q", output)
		}
	}
	if err := names.Err(); err != nil {
		return 0, "", err
	}
	jobs, err := replay.Jobs(ctx, k.bus)
	if err != nil {
		return 0, "", err // perhaps one that holds
	}
	for _, j := range jobs {
		if !replay.Holds(&j.Job, time.Now()) {
			continue
		}
		// Below its first sequence a job needs nothing, also before its ledger is there.
		view, err := ledger.Read(ctx, k.bus, proto.JobLedger(j.ID))
		if err != nil {
			return 0, "", err
		}
		if at := max(view.Floor, j.First-1); at < floor {
			floor, slowest = at, fmt.Sprintf("replay job %s to output %q", j.ID, j.Output)
		}
	}
	return floor, slowest, nil
}
