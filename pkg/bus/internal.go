package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// Bounds of INTERNAL, the collector's own log lines. When one is reached the oldest lines go: an absent Devo
// costs this much disk and no memory.
const (
	InternalBytes = 32 << 20
	InternalAge   = 7 * 24 * time.Hour
	// maxInternal is the largest frame in it.
	maxInternal = 64 << 10
	// internalWindow covers the retries of a publisher whose server was away; there are few ids in it.
	internalWindow = 2 * time.Minute
	// maxInternalPending bounds what one output has in hand.
	maxInternalPending = 500
)

func (t Topology) internalStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        proto.StreamInternal,
		Subjects:    []string{proto.SubjectsInternal},
		Description: "the collector's own log lines; the oldest go when it is full",
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    t.Replicas,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    InternalBytes,
		MaxAge:      InternalAge,
		MaxMsgSize:  maxInternal,
		Duplicates:  internalWindow,

		AllowAtomicPublish: true,
	}
}

func internalConsumer(o Output) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       proto.OutputConsumer(o.Name),
		Description:   "internal senders of output " + o.Name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       InternalAckWait,
		MaxDeliver:    -1,
		MaxAckPending: maxInternalPending,
		// A new output gets what is said from now on.
		DeliverPolicy:  jetstream.DeliverNewPolicy,
		FilterSubjects: []string{proto.SubjectInternalLines, proto.InternalMetricSubject(o.Name)},
	}
}

// InternalAckWait is how long a sender may take for a batch of lines, before another one gets it.
const InternalAckWait = time.Minute

// provisionInternal creates or updates INTERNAL and its consumers. It is apart from what alerts need, so that
// a server which refuses it, for its limits perhaps, does not stop them; nobody waits for it either.
func (b *Bus) provisionInternal(ctx context.Context, t Topology, prune bool) error {
	c := t.internalStream()
	stream, err := b.declare(ctx, c)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, o := range t.Outputs {
		if !o.Internal {
			continue
		}
		consumer := internalConsumer(o)
		wanted[consumer.Durable] = true
		if _, err := stream.CreateOrUpdateConsumer(ctx, consumer); err != nil {
			return fmt.Errorf("provision consumer of output %s on %s: %w", o.Name, c.Name, err)
		}
	}
	if !prune {
		return nil // a consumer too many holds nothing back here
	}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if _, ours := proto.OutputOfConsumer(name); !ours || wanted[name] {
			continue
		}
		if err := stream.DeleteConsumer(ctx, name); err != nil {
			return fmt.Errorf("prune consumer %s of %s: %w", name, c.Name, err)
		}
	}
	return names.Err()
}
