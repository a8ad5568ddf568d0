package bus

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// Bounds that the guarantees name.
const (
	// MaxUnconfirmed is how many events may be unconfirmed at one output over all sender replicas; it is
	// the MaxAckPending of the output's consumer, so the server enforces it.
	MaxUnconfirmed = 5000
	// MaxUndecided is how many rows may be in the hands of all dedup replicas, in the same way.
	MaxUndecided = 16 * maxBatch
	// AckWait is how long a delivery may go without a sign of life from the replica that has it before
	// another one gets it: what a killed process held flows again after this. Replicas renew every third
	// of it.
	AckWait = 10 * time.Second
	// duplicateWindow is the length of the Msg-Id windows: a second net on which no guarantee rests. It
	// covers the retries of a publish; each id in it costs the server 160 bytes of memory (measured).
	duplicateWindow = 15 * time.Second
	// uniqueWindow is shorter: there, a subject that is expected to be empty has said it all before.
	uniqueWindow = 2 * time.Second
	// maxMessage is the largest message a stream takes: whatever Azure can answer and its dead letter.
	maxMessage = 32 << 20
)

// Topology is everything that exists on the bus, from the configuration. It is the only declaration.
type Topology struct {
	Replicas        int           // 1, 3 or 5
	RawBytes        int64         // size limit of RAW
	UniqueBytes     int64         // size limit of UNIQUE
	UniqueRetention time.Duration // how long UNIQUE keeps what is confirmed, for replay
	HashRetention   time.Duration // how long a claim is remembered
	Outputs         []Output
}

// Output is one output's consumer on UNIQUE.
type Output struct {
	Name string
	// From is where a new output starts: "now" (or empty), "beginning", or an RFC 3339 time. It has no
	// effect on an output that exists.
	From string
	// Internal: the output also gets the collector's own log lines, by a consumer on INTERNAL.
	Internal bool
}

func (t Topology) streams() []jetstream.StreamConfig {
	limits := jetstream.StreamConfig{
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    t.Replicas,
		Discard:     jetstream.DiscardNew, // full means wait, never drop
		AllowDirect: true,
		MaxMsgSize:  maxMessage,
		Duplicates:  duplicateWindow,

		AllowAtomicPublish: true, // one fsync for a batch instead of one for a message
	}
	raw, unique, dead := limits, limits, limits
	raw.Name, raw.Subjects, raw.MaxBytes = proto.StreamRaw, []string{proto.SubjectsRaw}, t.RawBytes
	raw.Description = "rows as the fetcher published them; purged up to dedup's ack floor"
	unique.Name, unique.Subjects, unique.MaxBytes = proto.StreamUnique, []string{proto.SubjectsUnique}, t.UniqueBytes
	unique.Description = "first sightings, one message a subject; purged when old enough and confirmed at every output"
	unique.Duplicates = uniqueWindow
	dead.Name, dead.Subjects, dead.MaxBytes = proto.StreamDead, []string{proto.SubjectsDead}, max(t.RawBytes, maxMessage*2)
	dead.Description = "dead letters"
	return []jetstream.StreamConfig{raw, unique, dead}
}

// bucket is what the client's CreateKeyValue would make, plus atomic batches: a bucket is a stream.
func (t Topology) bucket(name string, history int64, ttl time.Duration, what string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              proto.BucketStream(name),
		Subjects:          []string{proto.BucketSubject(name, ">")},
		Description:       what,
		Storage:           jetstream.FileStorage,
		Replicas:          t.Replicas,
		Discard:           jetstream.DiscardNew,
		MaxMsgsPerSubject: history,
		MaxAge:            ttl,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxMsgs:           -1,
		MaxConsumers:      -1,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       true,
		Duplicates:        duplicateWindow,

		AllowAtomicPublish: true,
	}
}

func (t Topology) buckets() []jetstream.StreamConfig {
	jobs := t.bucket(proto.BucketJobs, 1, 0, "jobs that send alerts again: record, selection, turn")
	jobs.AllowMsgTTL = true // the turn of a job expires by the server's clock
	return []jetstream.StreamConfig{
		jobs,
		t.bucket(proto.BucketCheckpoints, 10, 0, "fetch positions and leases"),
		t.bucket(proto.BucketHashes, 1, t.HashRetention, "claims: which RAW sequence saw an alert first"),
		t.bucket(proto.BucketLedgers, 1, 0, "delivery ledgers: what each output has confirmed"),
	}
}

func dedupConsumer() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       proto.ConsumerDedup,
		Description:   "all dedup replicas share it",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxDeliver:    -1,
		MaxAckPending: MaxUndecided,
	}
}

func outputConsumer(o Output) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       proto.OutputConsumer(o.Name),
		Description:   "senders of output " + o.Name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxDeliver:    -1,
		MaxAckPending: MaxUnconfirmed,
	}
}

// jobConsumer reads its stream from the first selected sequence on. It has an end only in that the job has one.
func jobConsumer(j *proto.Job) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       proto.JobConsumer(j.ID),
		Description:   "senders of output " + j.Output + ", sending again",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxDeliver:    -1,
		MaxAckPending: MaxUnconfirmed,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   j.First,
	}
	if j.Stream == proto.StreamDead {
		c.FilterSubject = proto.DeadPrefix(proto.StageSender, j.Output) + ".*"
	}
	return c
}

// Provision creates or updates every stream, bucket and consumer of t; trouble with INTERNAL and with the bucket of
// the status records is only a warning in the log. It is idempotent and keeps positions; running it from two places at once is not supported. With prune, consumers and ledgers of
// outputs that are not in t are removed; without, they are left and named in the returned list.
func (b *Bus) Provision(ctx context.Context, t Topology, prune bool) (leftover []string, err error) {
	ctx, explain := b.guard(ctx)
	defer func() { err = explain(err) }()
	for _, c := range append(t.streams(), t.buckets()...) {
		if _, err := b.declare(ctx, c); err != nil {
			return nil, err
		}
	}
	if _, err := b.js.CreateOrUpdateConsumer(ctx, proto.StreamRaw, dedupConsumer()); err != nil {
		return nil, fmt.Errorf("provision consumer %s: %w", proto.ConsumerDedup, err)
	}
	wanted := map[string]bool{}
	for _, o := range t.Outputs {
		wanted[proto.OutputConsumer(o.Name)] = true
		if err := b.provisionOutput(ctx, o); err != nil {
			return nil, fmt.Errorf("provision output %s: %w", o.Name, err)
		}
	}
	unique, err := b.js.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return nil, err
	}
	names := unique.ConsumerNames(ctx)
	for name := range names.Name() {
		output, ours := proto.OutputOfConsumer(name)
		if !ours || wanted[name] {
			continue
		}
		if !prune {
			leftover = append(leftover, output)
			continue
		}
		if err := unique.DeleteConsumer(ctx, name); err != nil {
			return nil, fmt.Errorf("prune output %s: %w", output, err)
		}
		if err := b.removeLedger(ctx, output); err != nil {
			return nil, fmt.Errorf("prune output %s: %w", output, err)
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("list consumers: %w", err)
	}
	sort.Strings(leftover)
	if err := b.provisionStatus(ctx, t); err != nil {
		b.logger.Warn("the bucket of the status records could not be provisioned; `collector status` shows only what streams, buckets and ledgers hold", "error", err)
	}
	if err := b.provisionInternal(ctx, t, prune); err != nil {
		b.logger.Warn("the stream of the collector's own log lines could not be provisioned; they do not reach Devo until it is, alerts do", "error", err)
	}
	return leftover, nil
}

// provisionOutput writes the ledger's base record before the consumer exists: everything below the
// consumer's first sequence counts as settled, so that the ledger's floor never waits for it.
func (b *Bus) provisionOutput(ctx context.Context, o Output) error {
	want := outputConsumer(o)
	existing, err := b.js.Consumer(ctx, proto.StreamUnique, want.Durable)
	switch {
	case err == nil:
		c := existing.CachedInfo().Config
		want.DeliverPolicy, want.OptStartSeq = c.DeliverPolicy, c.OptStartSeq
		_, err = b.js.UpdateConsumer(ctx, proto.StreamUnique, want)
		return err
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return err
	}
	first, err := b.firstSequence(ctx, o.From)
	if err != nil {
		return err
	}
	if err := b.beginLedger(ctx, o.Name, first); err != nil {
		return err
	}
	want.DeliverPolicy, want.OptStartSeq = jetstream.DeliverByStartSequencePolicy, first
	_, err = b.js.CreateConsumer(ctx, proto.StreamUnique, want)
	return err
}

// beginLedger writes the base record of a ledger: everything below first counts as settled.
func (b *Bus) beginLedger(ctx context.Context, name string, first uint64) error {
	// Records that outlived an earlier consumer speak of sequences that this one may give out anew.
	if err := b.removeLedger(ctx, name); err != nil {
		return err
	}
	base := proto.Ledger{Instance: "base", Updated: time.Now(), Floor: first - 1, Proof: proto.ProofHalfClose}
	data, err := base.Encode()
	if err != nil {
		return err
	}
	if _, err := b.js.Publish(ctx, proto.BucketSubject(proto.BucketLedgers, proto.LedgerKey(name, "base")), data); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

func (b *Bus) removeLedger(ctx context.Context, name string) error {
	if err := b.Purge(ctx, proto.BucketStream(proto.BucketLedgers), proto.BucketSubject(proto.BucketLedgers, proto.Token(name)+".>")); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// firstSequence is the first sequence of UNIQUE that a new output gets.
func (b *Bus) firstSequence(ctx context.Context, from string) (uint64, error) {
	stream, err := b.js.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return 0, err
	}
	state := stream.CachedInfo().State
	switch from {
	case "", "now":
		return state.LastSeq + 1, nil
	case "beginning":
		return max(state.FirstSeq, 1), nil
	}
	at, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return 0, fmt.Errorf("from %q is none of: now, beginning, an RFC 3339 time", from)
	}
	return b.SequenceAt(ctx, proto.StreamUnique, at)
}

// Wait returns when everything in t exists, so that a service may bind. Services never create anything.
// While it waits it calls waiting with what is missing, once per change; it ends with ctx.
func (b *Bus) Wait(ctx context.Context, t Topology, waiting func(missing string)) error {
	said := ""
	for {
		missing := b.Missing(ctx, t)
		if missing == "" {
			return nil
		}
		if missing != said && ctx.Err() == nil {
			waiting(missing)
			said = missing
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Missing names the first thing of t that is not there, or cannot be seen, with the reason; "" when all is there.
func (b *Bus) Missing(ctx context.Context, t Topology) string {
	if err := b.Connected(); err != nil {
		return "the connection to the bus" // why is in the log
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, c := range append(t.streams(), t.buckets()...) {
		if _, err := b.Stream(ctx, c.Name); err != nil {
			return describe("stream "+c.Name, err)
		}
	}
	if _, err := b.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup); err != nil {
		return describe("consumer "+proto.ConsumerDedup, err)
	}
	for _, o := range t.Outputs {
		if _, err := b.Consumer(ctx, proto.StreamUnique, proto.OutputConsumer(o.Name)); err != nil {
			return describe("consumer of output "+o.Name, err)
		}
	}
	return ""
}

func describe(what string, err error) string {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return what + "; run `collector provision` with this configuration"
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		return what + ": the server runs without JetStream"
	}
	return fmt.Sprintf("%s: %v", what, err)
}
