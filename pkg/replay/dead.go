package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// StartDead starts a job that sends the alerts in dead letters of stage sender to their output once more, and
// returns its id. sequences are the letters' in DEAD. Every letter is looked at first: one that is not there,
// is not of the sender for this output, or whose alert makes no frame, is an error that names it, and then nothing
// is started. A job for the same letters that is still running is returned instead of a second one.
//
// The letters stay. When [Read] says that the job is done, and its Result that none of it is dead or missing, all of
// them are confirmed at the output and may be removed.
func StartDead(ctx context.Context, b *bus.Bus, output string, sequences []uint64) (id string, err error) {
	if len(sequences) == 0 {
		return "", errors.New("no dead letter is named")
	}
	var s Selection
	s.Sequences.AddAll(sequences)
	words := make([]string, 0, len(sequences))
	for _, r := range s.Sequences.Ranges() {
		words = append(words, strconv.FormatUint(r.First, 10), strconv.FormatUint(r.Last, 10))
	}
	base := Base(proto.JobDead, output, words...)
	jobs, err := Jobs(ctx, b)
	if err != nil {
		return "", err
	}
	before, n := Latest(jobs, base)
	if before != nil && before.State == proto.JobRunning {
		return before.ID, nil
	}
	if before == nil || before.State != proto.JobPreparing {
		n++
	}
	stream, err := b.Stream(ctx, proto.StreamDead)
	if err != nil {
		return "", fmt.Errorf("stream DEAD: %w", err)
	}
	for _, sequence := range slices.Compact(slices.Sorted(slices.Values(sequences))) {
		size, err := retriable(ctx, stream, output, sequence)
		if err != nil {
			return "", fmt.Errorf("dead letter %d: %w", sequence, err)
		}
		s.Bytes += uint64(size)
	}
	e, err := Start(ctx, b, proto.Job{ID: RunID(base, n), Kind: proto.JobDead, Output: output, Stream: proto.StreamDead}, s)
	return e.ID, err
}

// retriable returns the size of the frame that a dead letter's alert makes.
func retriable(ctx context.Context, stream jetstream.Stream, output string, sequence uint64) (size int, err error) {
	m, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, errors.New("it is not in DEAD")
	}
	if err != nil {
		return 0, err
	}
	letter, err := proto.DecodeDeadLetter(m.Data)
	switch {
	case err != nil:
		return 0, err
	case letter.Output != output:
		return 0, fmt.Errorf("it is of output %s, not of %s", letter.Output, output)
	}
	return Retriable(letter)
}

// Retriable returns the size in bytes of the frame that the alert in a letter of stage sender makes now; an error
// says why a job would not take the letter.
func Retriable(letter *proto.DeadLetter) (size int, err error) {
	switch {
	case letter.Stage != proto.StageSender:
		return 0, fmt.Errorf("it is of the %s, not of the sender", letter.Stage)
	case letter.Payload == nil:
		return 0, errors.New("it holds no alert: that did not fit")
	}
	e, err := proto.DecodeEnvelope(letter.Payload)
	if err != nil {
		return 0, err
	}
	frame, err := appendFrame(nil, e)
	if err != nil {
		return 0, fmt.Errorf("its alert still makes no frame: %w", err)
	}
	return len(frame), nil
}
