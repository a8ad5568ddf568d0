package bus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

const (
	// StatusAge is how long the record of a process is shown that does not write it again.
	StatusAge = 10 * time.Minute
	// statusTimeout bounds one write: the next one has newer figures anyway.
	statusTimeout = 5 * time.Second
	// maxStatus is larger than any record that [proto.ProcessStatus.Encode] makes.
	maxStatus = 256 << 10
)

func (t Topology) statusBucket() jetstream.StreamConfig {
	c := t.bucket(proto.BucketStatus, 1, StatusAge, "what running processes tell of themselves; nothing depends on it")
	c.MaxMsgSize = maxStatus
	return c
}

// provisionStatus creates or updates the bucket. As INTERNAL, it is apart from what alerts need: nobody waits for it.
func (b *Bus) provisionStatus(ctx context.Context, t Topology) error {
	_, err := b.declare(ctx, t.statusBucket())
	return err
}

// WriteStatus stores a process's record in the place of its last one. An error leaves it open whether it was stored;
// the next write is as good.
func (b *Bus) WriteStatus(ctx context.Context, program, instance string, record []byte) error {
	return b.putStatus(ctx, program, instance, record, nil)
}

// RemoveStatus removes a process's record, at its orderly stop.
func (b *Bus) RemoveStatus(ctx context.Context, program, instance string) error {
	return b.putStatus(ctx, program, instance, nil, nats.Header{"KV-Operation": {"DEL"}})
}

func (b *Bus) putStatus(ctx context.Context, program, instance string, record []byte, header nats.Header) (err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	subject := proto.BucketSubject(proto.BucketStatus, proto.StatusKey(program, instance))
	ctx, explain := b.guard(ctx, subject)
	defer func() { err = explain(err) }()
	_, err = b.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: record, Header: header}, jetstream.WithRetryAttempts(0))
	if err != nil && strings.Contains(err.Error(), nats.ErrNoStreamResponse.Error()) {
		return fault.WithHint(fmt.Errorf("bucket %s: %w", proto.BucketStatus, err), "run `collector provision` once; alerts are not affected")
	}
	return err
}

// ReadStatuses returns the records of all processes by their subjects, and the server's time, by which their ages are
// to be judged. Without the bucket the error wraps [jetstream.ErrStreamNotFound].
func (b *Bus) ReadStatuses(ctx context.Context) (records map[string]Stored, now time.Time, err error) {
	name := proto.BucketStream(proto.BucketStatus)
	stream, err := b.Stream(ctx, name)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("bucket %s: %w", proto.BucketStatus, err)
	}
	now = stream.CachedInfo().TimeStamp
	records, err = b.Lookup(ctx, name, []string{proto.BucketSubject(proto.BucketStatus, ">")})
	return records, now, err
}
