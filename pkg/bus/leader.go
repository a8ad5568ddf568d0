package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Get asks the stream's leader for the message with that sequence. Where there is none the error wraps
// [jetstream.ErrMsgNotFound]: on a stream with copies that is certain, since no copy that lags behind is asked. A server
// says the same of a message that it cannot read at the moment, so what is done about it must stand being wrong once,
// or be asked for again later. Every other error says nothing about the message. Safe for concurrent use.
func (b *Bus) Get(ctx context.Context, stream string, sequence uint64) (*jetstream.RawStreamMsg, error) {
	m, err := b.ask(ctx, stream, map[string]any{"seq": max(sequence, 1)})
	if err != nil {
		return nil, fmt.Errorf("read %s at sequence %d: %w", stream, sequence, err)
	}
	return m, nil
}

// GetLast asks the stream's leader for the newest message on a subject, as [Bus.Get] does.
func (b *Bus) GetLast(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	m, err := b.ask(ctx, stream, map[string]any{"last_by_subj": subject})
	if err != nil {
		return nil, fmt.Errorf("read the newest message of %s on %s: %w", stream, subject, err)
	}
	return m, nil
}

// ask makes the request by hand: the client asks any copy wherever the stream allows that.
func (b *Bus) ask(ctx context.Context, stream string, what map[string]any) (m *jetstream.RawStreamMsg, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	subject := api("STREAM.MSG.GET." + stream)[0]
	ctx, explain := b.guard(ctx, subject)
	defer func() { err = explain(err) }()
	request, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	answer, err := b.conn.RequestWithContext(ctx, subject, request)
	if err != nil {
		return nil, err
	}
	// nats-server, server/jetstream_api.go JSApiMsgGetResponse and server/stream.go StoredMsg.
	var response struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &response); err != nil {
		return nil, err
	}
	switch {
	case response.Error != nil && response.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, jetstream.ErrMsgNotFound
	case response.Error != nil:
		return nil, response.Error
	case response.Message == nil:
		return nil, errors.New("an answer without a message")
	}
	stored := response.Message
	m = &jetstream.RawStreamMsg{Subject: stored.Subject, Sequence: stored.Sequence, Data: stored.Data, Time: stored.Time}
	if len(stored.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(stored.Header); err != nil {
			return nil, err
		}
	}
	return m, nil
}
