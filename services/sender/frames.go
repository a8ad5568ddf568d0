package sender

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/devo"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
)

// newerDelay is how long an alert that only a newer program can read waits before it is looked at again.
const newerDelay = time.Minute

// maxKept bounds the buffer that a lane keeps for its next batch; a larger one was for large alerts.
const maxKept = 4 << 20

// frame is where one delivery's bytes lie in the batch's buffer.
type frame struct {
	start, end int
	header     nats.Header
	more       bool // the server had more when it sent this one
}

type frameList []frame

// in returns the frames' bytes for one write: the part of the buffer itself when they lie side by side,
// which is nearly always so, else a copy.
func (f frameList) in(buffer []byte) []byte {
	size, gap := 0, false
	for i, x := range f {
		size += x.end - x.start
		gap = gap || i > 0 && f[i-1].end != x.start
	}
	if !gap {
		return buffer[f[0].start:f[len(f)-1].end]
	}
	out := make([]byte, 0, size)
	for _, x := range f {
		out = append(out, buffer[x.start:x.end]...)
	}
	return out
}

func (f frameList) headers() []nats.Header {
	if len(f) == 0 || len(f[0].header[proto.HeaderTraceparent]) == 0 {
		return nil
	}
	out := make([]nats.Header, len(f))
	for i, x := range f {
		out[i] = x.header
	}
	return out
}

// read makes frames of messages. What is no alert ends in the output's dead letters, what is of a newer
// version waits in the stream, what is in hand already is left out; none of these is in the result. The
// frames lie in the returned buffer, which is dst where that has room. meanwhile is called when it takes long.
func (o *output) read(ctx context.Context, msgs []jetstream.Msg, lane int, envelopes *proto.EnvelopeReader, dst []byte, meanwhile func()) ([]*delivery, frameList, []byte) {
	batch := make([]*delivery, 0, len(msgs))
	frames := make(frameList, 0, len(msgs))
	var suspects []suspect
	// One buffer for the batch's frames: they are written together and then forgotten together.
	size := 0
	for _, m := range msgs {
		size += len(m.Data()) + 256
	}
	buffer := dst[:0]
	if cap(buffer) < size {
		buffer = make([]byte, 0, size)
	}
	for _, m := range msgs {
		meta, err := m.Metadata()
		if err != nil {
			o.trouble.Report(fmt.Errorf("delivery without metadata: %w", err))
			continue
		}
		if m.Subject() == proto.SubjectFiller {
			o.ledger.Skip([]uint64{meta.Sequence.Stream})
			_ = m.Ack() // lost: it comes again and is skipped again
			continue
		}
		d := &delivery{sequence: meta.Sequence.Stream, msg: m, lane: lane, taken: time.Now()}
		if !o.inflight.take(d) {
			continue
		}
		if o.suspicious(meta) {
			suspects = append(suspects, suspect{d, meta})
			continue
		}
		if f, ok := o.frame(ctx, d, meta, envelopes, &buffer); ok {
			batch, frames = append(batch, d), append(frames, f)
		}
	}
	for _, s := range o.try(ctx, suspects, meanwhile) {
		if f, ok := o.frame(ctx, s.delivery, s.meta, envelopes, &buffer); ok {
			batch, frames = append(batch, s.delivery), append(frames, f)
		}
	}
	return batch, frames, buffer
}

// frame appends the frame of one delivery to buffer; ok is false for one that is none of the batch's any more.
func (o *output) frame(ctx context.Context, d *delivery, meta *jetstream.MsgMetadata, envelopes *proto.EnvelopeReader, buffer *[]byte) (f frame, ok bool) {
	start := len(*buffer)
	event, grown, err := o.feed.appendFrame(*buffer, envelopes, d.msg.Data())
	switch {
	case errors.Is(err, proto.ErrNewerMajor):
		o.newer.Report(err)
		o.metrics.newer.Add(ctx, 1, o.label)
		o.giveBack([]*delivery{d}, newerDelay)
		return frame{}, false
	case err != nil:
		o.bury(ctx, d, meta, err)
		return frame{}, false
	}
	*buffer = grown
	o.compression.sample(meta.NumPending)
	d.event, d.size = event, len(grown)-start
	return frame{start: start, end: len(grown), header: d.msg.Headers(), more: meta.NumPending > 0}, true
}

// appendFrame turns a panic into an error: an alert must never take the service down, and trying it again
// would only panic again.
func appendFrame(dst []byte, envelopes *proto.EnvelopeReader, data []byte) (event time.Time, out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: making its frame panicked: %v", proto.ErrMalformed, r)
		}
	}()
	e, err := envelopes.Read(data)
	if err != nil {
		return time.Time{}, nil, err
	}
	faultpoint.Crash(faultpoint.SenderFrames, e.Row)
	out, err = devo.AppendFrame(dst, devo.Header{
		Time: e.PullStart, Host: e.Host, Tag: e.Tag, Environment: e.Environment, PullingID: strconv.FormatInt(e.PullingID, 10),
	}, e.Row)
	return e.EventTime, out, err
}

// bury writes the dead letter (what is one already stays it), then the ledger, then acknowledges; when one of them
// fails the delivery comes again. One that the ledger holds as settled, and whose acknowledgement was lost, is
// acknowledged only.
func (o *output) bury(ctx context.Context, d *delivery, meta *jetstream.MsgMetadata, reason error) {
	letter := proto.DeadLetter{
		Stage: proto.StageSender, Output: o.settings.Name, Reason: reason.Error(), Attempts: int(meta.NumDelivered),
		First: meta.Timestamp, Last: time.Now(), Stream: o.feed.stream, Sequence: d.sequence, Payload: d.msg.Data(),
	}
	if !errors.Is(reason, trial.ErrCondemned) { // that one must not be read
		if e, err := proto.DecodeEnvelope(d.msg.Data()); err == nil {
			letter.AlertID = e.AlertID
		}
	}
	view, err := ledger.Read(ctx, o.bus, o.feed.ledger)
	if err == nil && (d.sequence <= view.Floor || view.Confirmed.Contains(d.sequence)) {
		o.acknowledge(ctx, []*delivery{d})
		return
	}
	if err == nil && o.feed.stream != proto.StreamDead {
		err = o.bus.DeadLetter(ctx, letter)
	}
	if err == nil {
		err = o.ledger.Dead(ctx, []uint64{d.sequence})
	}
	if err != nil {
		o.trouble.Report(err)
		o.giveBack([]*delivery{d}, time.Second)
		return
	}
	o.acknowledge(ctx, []*delivery{d})
	o.metrics.dead.Add(ctx, 1, o.label)
	o.poison.Report(fmt.Errorf("%s sequence %d is in the dead letters of output %s: %w", o.feed.stream, d.sequence, o.settings.Name, reason))
}
