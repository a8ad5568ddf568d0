package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// DeadLetter stores d in DEAD and returns nil when it is there; writing the same one again changes
// nothing. A payload that does not fit any more (the letter is a little larger than the message was) is
// left out and the reason says so. Unknown outcomes are tried again until ctx ends; ErrFull means that
// DEAD itself is full and that the message must stay where it is.
func (b *Bus) DeadLetter(ctx context.Context, d proto.DeadLetter) error {
	if len(d.Payload) > maxMessage-(64<<10) {
		d.Reason += fmt.Sprintf(" (its %d bytes do not fit into a dead letter and were left out)", len(d.Payload))
		d.Payload = nil
	}
	data, err := d.Encode()
	if err != nil {
		return err
	}
	// Without a Msg-Id: one that was removed, because it was tried again, and is written again must be stored.
	message := Message{Subject: d.Subject(), Data: data, ExpectEmpty: true}
	err = b.PublishBatch(ctx, proto.StreamDead, []Message{message})
	if errors.Is(err, ErrTooLarge) && d.Payload != nil {
		d.Reason += fmt.Sprintf(" (the server takes no letter with its %d bytes, so they were left out)", len(d.Payload))
		d.Payload = nil
		return b.DeadLetter(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("dead letter of %s: %w", d.AlertID, err)
	}
	return nil
}

// RemoveDeadLetter removes the letter at a sequence of DEAD. One that is gone already is no error.
func (b *Bus) RemoveDeadLetter(ctx context.Context, sequence uint64) (err error) {
	ctx, explain := b.guard(ctx, api("STREAM.INFO."+proto.StreamDead, "STREAM.MSG.DELETE."+proto.StreamDead)...)
	defer func() { err = explain(err) }()
	s, err := b.js.Stream(ctx, proto.StreamDead)
	if err != nil {
		return fmt.Errorf("dead letter %d: %w", sequence, err)
	}
	if err := s.DeleteMsg(ctx, sequence); err != nil {
		if _, missing := s.GetMsg(ctx, sequence); errors.Is(missing, jetstream.ErrMsgNotFound) {
			return nil
		}
		return fmt.Errorf("remove the dead letter %d: %w", sequence, err)
	}
	return nil
}
