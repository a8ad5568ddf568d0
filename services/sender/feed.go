package sender

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// feed is what the lanes of an output, or of a job at it, read: a durable consumer on a stream, and the ledger that
// speaks of its sequences.
type feed struct {
	stream, consumer, ledger string
	// remedy is the hint for a ledger that is ahead of its stream.
	remedy string
	// job says what to take from the stream; nil: everything.
	job *selected
}

// selected is what a job takes.
type selected struct {
	sequences proto.Sequences
	pace      *pace // nil: no rate
}

func ownFeed(output string) *feed {
	consumer := proto.OutputConsumer(output)
	return &feed{
		stream: proto.StreamUnique, consumer: consumer, ledger: output,
		remedy: "dedup brings UNIQUE's numbering up to it as soon as it runs; until then nothing is taken",
	}
}

// paced reports whether the feed has a rate.
func (f *feed) paced() bool { return f.job != nil && f.job.pace != nil }

// appendFrame makes the frame of one message of the feed.
func (f *feed) appendFrame(dst []byte, envelopes *proto.EnvelopeReader, data []byte) (event time.Time, out []byte, err error) {
	if f.stream == proto.StreamDead {
		letter, err := proto.DecodeDeadLetter(data)
		if err != nil {
			return time.Time{}, nil, err
		}
		data = letter.Payload
	}
	return appendFrame(dst, envelopes, data)
}

// source gives a lane its deliveries; see [bus.Pull].
type source interface {
	Next(ctx context.Context, n int, wait time.Duration) ([]jetstream.Msg, error)
	Close()
}

// source binds to the output's feed.
func (o *output) source(ctx context.Context) (source, error) {
	pull, err := o.bus.Pull(ctx, o.feed.stream, o.feed.consumer)
	if err != nil {
		return nil, err
	}
	if o.feed.job == nil {
		return pull, nil
	}
	return &sieve{output: o, job: o.feed.job, pull: pull}, nil
}

// complain reports trouble with the bus. That the consumer of a job is gone is the job's end, of which the lanes
// are told in a moment; a job that is cut off from its consumer is reported where its progress is read.
func (o *output) complain(err error) {
	if o.feed.job != nil && gone(err) {
		return
	}
	o.trouble.Report(err)
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerDoesNotExist)
}

// sieve passes on what a job has selected, at its rate. Everything else it acknowledges: it is nothing of the
// job's, whoever gets it.
type sieve struct {
	output *output
	job    *selected
	pull   *bus.Pull
	kept   []jetstream.Msg // selected, and not passed on for want of permits
	alive  time.Time       // when the server was last told that they are in work
}

// permitWait is how long a lane sleeps for want of permits.
const permitWait = 20 * time.Millisecond

// Next implements source.
func (s *sieve) Next(ctx context.Context, n int, wait time.Duration) ([]jetstream.Msg, error) {
	for deadline := time.Now().Add(wait); ; {
		if s.job.pace != nil && !s.job.pace.hold(ctx) {
			s.Close() // another process has the turn: it needs them
			pause(ctx, time.Until(deadline))
			return nil, ctx.Err()
		}
		left := time.Until(deadline)
		if len(s.kept) == 0 {
			if left <= 0 {
				return nil, nil
			}
			msgs, err := s.pull.Next(ctx, n, left)
			if err != nil || len(msgs) == 0 {
				return nil, err
			}
			s.sift(msgs)
			continue
		}
		k := len(s.kept)
		if s.job.pace != nil {
			k = s.job.pace.take(k)
		}
		if k > 0 {
			out := s.kept[:k:k]
			s.kept = s.kept[k:]
			return out, nil
		}
		s.renew()
		if left <= 0 || !pause(ctx, min(permitWait, left)) {
			return nil, ctx.Err()
		}
	}
}

// sift keeps what is selected.
func (s *sieve) sift(msgs []jetstream.Msg) {
	var skipped []uint64
	for _, m := range msgs {
		meta, err := m.Metadata()
		if err != nil || s.job.sequences.Contains(meta.Sequence.Stream) {
			s.kept = append(s.kept, m) // whoever reads it reports the error
			continue
		}
		skipped = append(skipped, meta.Sequence.Stream)
		_ = m.Ack() // lost: it comes again and is skipped again
	}
	s.output.ledger.Skip(skipped)
	s.alive = time.Now()
}

func (s *sieve) renew() {
	if time.Since(s.alive) < bus.AckWait/3 {
		return
	}
	s.alive = time.Now()
	for _, m := range s.kept {
		_ = m.InProgress()
	}
}

// Close implements source. Next may be called again.
func (s *sieve) Close() {
	for _, m := range s.kept {
		_ = m.Nak()
	}
	s.kept = nil
	s.pull.Close()
}
