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
	"defenderiot/proto"
)

// newerDelay is how long an alert that only a newer program can read waits before it is looked at again.
const newerDelay = time.Minute

// frame is the bytes of one delivery on the wire.
type frame struct {
	data   []byte
	header nats.Header
	more   bool // the server had more when it sent this one
}

type frameList []frame

// bytes joins the frames into one write.
func (f frameList) bytes() []byte {
	n := 0
	for _, x := range f {
		n += len(x.data)
	}
	out := make([]byte, 0, n)
	for _, x := range f {
		out = append(out, x.data...)
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
// version waits in the stream, what is in hand already is left out; none of these is in the result.
func (o *output) read(ctx context.Context, msgs []jetstream.Msg) ([]*delivery, frameList) {
	batch := make([]*delivery, 0, len(msgs))
	frames := make(frameList, 0, len(msgs))
	// One buffer for the batch's frames: they are written together and then forgotten together.
	size := 0
	for _, m := range msgs {
		size += len(m.Data()) + 256
	}
	buffer := make([]byte, 0, size)
	for _, m := range msgs {
		meta, err := m.Metadata()
		if err != nil {
			o.trouble.Report(fmt.Errorf("delivery without metadata: %w", err))
			continue
		}
		d := &delivery{sequence: meta.Sequence.Stream, msg: m, taken: time.Now()}
		if !o.inflight.take(d) {
			continue
		}
		start := len(buffer)
		event, grown, err := appendFrame(buffer, m.Data())
		switch {
		case errors.Is(err, proto.ErrNewerMajor):
			o.newer.Report(err)
			o.metrics.newer.Add(ctx, 1, o.label)
			o.giveBack([]*delivery{d}, newerDelay)
			continue
		case err != nil:
			o.bury(ctx, d, meta, err)
			continue
		}
		buffer = grown
		d.event = event
		batch = append(batch, d)
		frames = append(frames, frame{data: buffer[start:len(buffer):len(buffer)], header: m.Headers(), more: meta.NumPending > 0})
	}
	return batch, frames
}

// appendFrame turns a panic into an error: an alert must never take the service down, and trying it again
// would only panic again.
func appendFrame(dst, data []byte) (event time.Time, out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: making its frame panicked: %v", proto.ErrMalformed, r)
		}
	}()
	e, err := proto.DecodeEnvelope(data)
	if err != nil {
		return time.Time{}, nil, err
	}
	out, err = devo.AppendFrame(dst, devo.Header{
		Time: e.PullStart, Host: e.Host, Tag: e.Tag, Environment: e.Environment, PullingID: strconv.FormatInt(e.PullingID, 10),
	}, e.Row)
	return e.EventTime, out, err
}

// bury writes the dead letter, then the ledger, then acknowledges; when one of them fails the delivery
// comes again.
func (o *output) bury(ctx context.Context, d *delivery, meta *jetstream.MsgMetadata, reason error) {
	letter := proto.DeadLetter{
		Stage: proto.StageSender, Output: o.settings.Name, Reason: reason.Error(), Attempts: int(meta.NumDelivered),
		First: meta.Timestamp, Last: time.Now(), Stream: proto.StreamUnique, Sequence: d.sequence, Payload: d.msg.Data(),
	}
	if e, err := proto.DecodeEnvelope(d.msg.Data()); err == nil {
		letter.AlertID = e.AlertID
	}
	err := o.bus.DeadLetter(ctx, letter)
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
	o.poison.Report(fmt.Errorf("UNIQUE sequence %d is in the dead letters of output %s: %w", d.sequence, o.settings.Name, reason))
}
