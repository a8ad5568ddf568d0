package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"defenderiot/proto"
)

// Volume is what a stream, or a bucket's stream, holds.
type Volume struct {
	Messages uint64
	Bytes    uint64
	// Limit is the most bytes that the server stores in it; 0 for none. It is the server's word: a changed
	// configuration counts from the next provisioning on.
	Limit                       uint64
	FirstSequence, LastSequence uint64
	Replicas                    int       // how many servers have it
	FirstTime, LastTime         time.Time // when these were stored; of an empty stream without meaning
}

// Gap is how many sequences between the first and the last have no message.
func (v Volume) Gap() uint64 {
	if v.Messages == 0 {
		return 0
	}
	return v.LastSequence - v.FirstSequence + 1 - min(v.Messages, v.LastSequence-v.FirstSequence+1)
}

// Fill is the share of the limit in use, 0 where there is no limit.
func (v Volume) Fill() float64 {
	if v.Limit == 0 {
		return 0
	}
	return float64(v.Bytes) / float64(v.Limit)
}

// Streams are the names of all streams that alerts, positions and ledgers live in; a bucket is one of them by the name
// of its stream. INTERNAL is not among them: it is small, drops its oldest by design, and may be missing.
func Streams() []string {
	names := declared()
	slices.Sort(names)
	return names
}

// Volume asks what a stream holds. An
// error means that nothing is known; asking again is harmless. Safe for concurrent use.
func (b *Bus) Volume(ctx context.Context, stream string) (v Volume, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	subject := api("STREAM.INFO." + stream)[0]
	ctx, explain := b.guard(ctx, subject)
	defer func() { err = explain(err) }()
	answer, err := b.conn.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return Volume{}, fmt.Errorf("state of stream %s: %w", stream, err)
	}
	// nats-server, server/stream.go StreamInfo and server/store.go StreamState.
	var info struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
		Config struct {
			MaxBytes int64 `json:"max_bytes"`
			Replicas int   `json:"num_replicas"`
		} `json:"config"`
		State struct {
			Messages uint64    `json:"messages"`
			Bytes    uint64    `json:"bytes"`
			First    uint64    `json:"first_seq"`
			Last     uint64    `json:"last_seq"`
			Begin    time.Time `json:"first_ts"`
			End      time.Time `json:"last_ts"`
		} `json:"state"`
	}
	if err := json.Unmarshal(answer.Data, &info); err != nil {
		return Volume{}, fmt.Errorf("state of stream %s: %w", stream, err)
	}
	if info.Error != nil {
		return Volume{}, fmt.Errorf("state of stream %s: %w", stream, errors.New(info.Error.Description))
	}
	v = Volume{
		Messages: info.State.Messages, Bytes: info.State.Bytes, Limit: uint64(max(info.Config.MaxBytes, 0)),
		FirstSequence: info.State.First, LastSequence: info.State.Last, Replicas: info.Config.Replicas,
		FirstTime: info.State.Begin, LastTime: info.State.End,
	}
	return v, nil
}

// Deleted are the sequences between a stream's first and last that have no message. One that cannot be read is not
// among them: the server does not know. Safe for concurrent use.
func (b *Bus) Deleted(ctx context.Context, stream string) (proto.Sequences, error) {
	s, err := b.Stream(ctx, stream)
	if err != nil {
		return proto.Sequences{}, err
	}
	info, err := s.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return proto.Sequences{}, fmt.Errorf("state of stream %s: %w", stream, err)
	}
	return proto.SequencesOf(info.State.Deleted...), nil
}

// StoredAt is when the message with that sequence was stored, by the server's clock; of one that is gone, when the next
// one was. found is false behind the last message. Safe for concurrent use.
func (b *Bus) StoredAt(ctx context.Context, stream string, sequence uint64) (at time.Time, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, explain := b.guard(ctx, api("DIRECT.GET."+stream)...)
	defer func() { err = explain(err) }()
	messages, err := jetstreamext.GetBatch(ctx, b.js, stream, 1, jetstreamext.GetBatchSeq(max(sequence, 1)))
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read %s at sequence %d: %w", stream, sequence, err)
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return time.Time{}, false, nil
		}
		if err != nil {
			return time.Time{}, false, fmt.Errorf("read %s at sequence %d: %w", stream, sequence, err)
		}
		return m.Time, true, nil
	}
	return time.Time{}, false, ctx.Err()
}
