package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// ProvisionJob makes the delivery ledger and then the consumer of a job; both are new afterwards, so it must not be
// called for a job that anybody works on. It takes the operator's rights: the services only bind.
func (b *Bus) ProvisionJob(ctx context.Context, j *proto.Job) error {
	if err := b.removeConsumer(ctx, j); err != nil {
		return err
	}
	if err := b.beginLedger(ctx, proto.JobLedger(j.ID), j.First); err != nil {
		return fmt.Errorf("job %s: %w", j.ID, err)
	}
	if _, err := b.js.CreateConsumer(ctx, j.Stream, jobConsumer(j)); err != nil {
		return fmt.Errorf("job %s: consumer: %w", j.ID, err)
	}
	return nil
}

// RemoveJob removes consumer, ledger and selection of a job that has ended; its record stays. Doing it again
// changes nothing.
func (b *Bus) RemoveJob(ctx context.Context, j *proto.Job) error {
	if err := b.removeConsumer(ctx, j); err != nil {
		return err
	}
	if err := b.removeLedger(ctx, proto.JobLedger(j.ID)); err != nil {
		return fmt.Errorf("job %s: %w", j.ID, err)
	}
	if err := b.Purge(ctx, proto.BucketStream(proto.BucketJobs), proto.BucketSubject(proto.BucketJobs, "selection."+j.ID+".*")); err != nil {
		return fmt.Errorf("job %s: selection: %w", j.ID, err)
	}
	return nil
}

func (b *Bus) removeConsumer(ctx context.Context, j *proto.Job) error {
	err := b.js.DeleteConsumer(ctx, j.Stream, proto.JobConsumer(j.ID))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("job %s: consumer: %w", j.ID, err)
	}
	return nil
}
