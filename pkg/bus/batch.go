package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/cenkalti/backoff/v5"

	"defenderiot/pkg/fault"
)

const (
	// maxBatch is the server's default limit of messages in an atomic batch.
	maxBatch = 1000
	// maxBatchBytes bounds what one batch holds in memory on both sides.
	maxBatchBytes = 8 << 20
	// minAtomic is the size below which single publishes cost less than a batch's staging: a batch takes
	// four fsyncs whatever its size, a single publish one (measured with strace, sync always).
	minAtomic = 4
)

// Server error codes that decide what happens next. They are compared by number because the client
// folds several of them into one error value.
const (
	codeWrongLastSequence  jetstream.ErrorCode = 10071 // the subject holds a message already
	codeSequenceInFlight   jetstream.ErrorCode = 10164 // another proposal on the subject is in flight
	codeStoreFailed        jetstream.ErrorCode = 10077 // limits reached or disk trouble
	codeMsgIDInFlight      jetstream.ErrorCode = 10158
	codeTooManyRequests    jetstream.ErrorCode = 10167
	codeAccountLimit       jetstream.ErrorCode = 10002
	codeServerLimit        jetstream.ErrorCode = 10023
	codeMessageTooLarge    jetstream.ErrorCode = 10054
	codeHeaderTooLarge     jetstream.ErrorCode = 10097
	codeBatchTooManyOpened                     = jetstreamext.JSErrCodeAtomicPublishTooManyInflight
)

// Errors of this package; compare with errors.Is.
var (
	// ErrFull: the stream refuses new messages because its limit is reached. Wait and try again: that is
	// backpressure, nothing was dropped.
	ErrFull = errors.New("stream is full")
	// ErrConflict: at least one subject that was expected to be empty holds a message, or may hold one in
	// a moment. Nothing of the batch was stored. Look the subjects up and decide again.
	ErrConflict = errors.New("a subject is taken")
	// ErrTooLarge: the message exceeds what the server takes and never will be stored.
	ErrTooLarge = errors.New("message is too large")
)

// Message is one message to publish.
type Message struct {
	Subject string
	Data    []byte
	// MsgID is put into the stream's duplicate window; empty for none.
	MsgID string
	// ExpectEmpty publishes only if the subject holds no message.
	ExpectEmpty bool
	// ExpectLast, if not 0, publishes only if that is the sequence of the subject's newest message.
	ExpectLast uint64
	// Header is copied into the message; nil for none.
	Header nats.Header
}

// expectEmpty is shared by all messages; nobody changes a header's values in place.
var expectEmpty = []string{"0"}

func (m Message) nats() *nats.Msg {
	// Four entries: the two below, and the batch's id and number.
	h := make(nats.Header, len(m.Header)+4)
	for k, v := range m.Header {
		h[k] = v
	}
	if m.MsgID != "" {
		h[jetstream.MsgIDHeader] = []string{m.MsgID}
	}
	if m.ExpectEmpty {
		h[jetstream.ExpectedLastSubjSeqHeader] = expectEmpty
	} else if m.ExpectLast > 0 {
		h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(m.ExpectLast, 10)}
	}
	return &nats.Msg{Subject: m.Subject, Data: m.Data, Header: h}
}

// PublishBatch returns nil when every message of msgs is stored in stream: now, or earlier by the same
// call with an unknown outcome. Each message must therefore name itself, by MsgID or by ExpectEmpty on a
// subject of its own; then publishing again changes nothing.
//
// Batches of up to 1,000 messages and 8 MiB are atomic; a longer list is stored in several. Outcomes that
// are unknown (time-out, lost connection) are tried again until ctx ends. Errors: [ErrFull], [ErrTooLarge],
// [ErrRefused] or ctx's error; then any part of msgs may be stored. Safe for concurrent use.
func (b *Bus) PublishBatch(ctx context.Context, stream string, msgs []Message) error {
	return b.PublishBatchWhile(ctx, stream, msgs, func() bool { return true })
}

// ErrStopped: the caller no longer wanted a publish to be tried again. Any part may be stored.
var ErrStopped = errors.New("the publish is not tried again")

// PublishBatchWhile is [Bus.PublishBatch], but makes each try only while still returns true; else its error is
// [ErrStopped].
func (b *Bus) PublishBatchWhile(ctx context.Context, stream string, msgs []Message, still func() bool) error {
	for len(msgs) > 0 {
		n := batchLength(msgs)
		if err := b.storeAll(ctx, stream, msgs[:n], still); err != nil {
			return fmt.Errorf("publish %d messages to %s: %w", n, stream, err)
		}
		msgs = msgs[n:]
	}
	return nil
}

// batchLength says how many of msgs go into one batch: at least one.
func batchLength(msgs []Message) int {
	bytes := 0
	for i, m := range msgs {
		bytes += len(m.Data)
		if i == maxBatch || (i > 0 && bytes > maxBatchBytes) {
			return i
		}
	}
	return len(msgs)
}

// stuckAfter is how long a publish is tried again before that is worth a line in the log.
const stuckAfter = 10 * time.Second

func (b *Bus) storeAll(ctx context.Context, stream string, msgs []Message, still func() bool) error {
	atomic := len(msgs) >= minAtomic
	began := time.Now()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if !still() {
			return struct{}{}, backoff.Permanent(ErrStopped)
		}
		var err error
		if atomic {
			err = b.TryBatch(ctx, stream, msgs)
			if errors.Is(err, ErrConflict) || errors.Is(err, ErrFull) {
				// Some of them are stored, by an earlier try or the one message before a crash, or there is no
				// room for all at once. Singly, each tells for itself.
				atomic = false
			}
		}
		if !atomic && still() {
			err = b.storeEach(ctx, stream, msgs)
		}
		if errors.Is(err, ErrFull) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrRefused) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retryWaits()), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		// A lost connection is told elsewhere; this is for what looks like a time-out for ever.
		if time.Since(began) > stuckAfter && b.conn.Status() == nats.CONNECTED {
			err = fault.WithHint(fmt.Errorf("%s does not store %d messages, which is tried again: %w", stream, len(msgs), err), frozenHint)
			b.withhold(stream, err)
			b.stuck.Report(err)
		}
	}))
	if err == nil {
		b.stuck.Resolve()
	}
	b.withhold(stream, nil)
	return err
}

// frozenHint: the server answers nothing to whom it does not store for, so the reason is only with the server.
const frozenHint = "a nats-server stops a stream after the first write that fails, as on a full or read-only disk: look for `critical write error` in its log or at its /healthz, make room and restart it. Nothing is lost meanwhile"

// withhold notes why a stream stores nothing; nil: it does, or nobody tries any more.
func (b *Bus) withhold(stream string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.withheld, stream)
	} else {
		b.withheld[stream] = err
	}
}

func retryWaits() backoff.BackOff {
	w := backoff.NewExponentialBackOff()
	w.InitialInterval = 50 * time.Millisecond
	w.MaxInterval = 5 * time.Second
	return w
}

// TryBatch makes one attempt to store all of msgs (at most 1,000) as one atomic batch: either all are
// stored (nil) or the error says. [ErrConflict], [ErrFull], [ErrTooLarge] and [ErrRefused] mean that nothing is stored;
// any other error means that the outcome is unknown.
func (b *Bus) TryBatch(ctx context.Context, stream string, msgs []Message) (err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, explain := b.guard(ctx, subjectsOf(msgs)...)
	defer func() { err = explain(err) }()
	if len(msgs) == 1 {
		return b.tryOne(ctx, stream, msgs[0])
	}
	out := make([]*nats.Msg, len(msgs))
	for i, m := range msgs {
		out[i] = m.nats() // made anew for each attempt: publishing a batch writes into its headers
	}
	out[0].Header[jetstream.ExpectedStreamHeader] = []string{stream}
	_, err = jetstreamext.PublishMsgBatch(ctx, b.js, out, jetstreamext.BatchFlowControl{AckTimeout: requestTimeout})
	return classify(err)
}

// subjectsOf are all that may be refused.
func subjectsOf(msgs []Message) []string {
	subjects := make([]string, 0, len(msgs))
	for _, m := range msgs {
		if n := len(subjects); n == 0 || subjects[n-1] != m.Subject {
			subjects = append(subjects, m.Subject)
		}
	}
	return subjects
}

func (b *Bus) tryOne(ctx context.Context, stream string, m Message) error {
	_, err := b.js.PublishMsg(ctx, m.nats(), jetstream.WithExpectStream(stream))
	return classify(err)
}

// storeEach publishes msgs singly, all in flight at once. A message that is there already counts as
// stored.
func (b *Bus) storeEach(ctx context.Context, stream string, msgs []Message) (err error) {
	ctx, explain := b.guard(ctx, subjectsOf(msgs)...)
	defer func() { err = explain(err) }()
	futures := make([]jetstream.PubAckFuture, 0, len(msgs))
	var first error
	for _, m := range msgs {
		f, err := b.js.PublishMsgAsync(m.nats(), jetstream.WithExpectStream(stream), jetstream.WithStallWait(requestTimeout))
		if err != nil {
			first = err
			break
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			if err = classify(err); !errors.Is(err, errTaken) && first == nil {
				first = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return first
}

// errTaken is the conflict that is certain: the subject does hold a message.
var errTaken = fmt.Errorf("%w: wrong last sequence", ErrConflict)

// Conflict reports whether err, of any publish, says that the subject's last sequence is not the expected
// one, or may not be in a moment: nothing was stored.
func Conflict(err error) bool { return errors.Is(classify(err), ErrConflict) }

func classify(err error) error {
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		if errors.Is(err, nats.ErrMaxPayload) {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		return err
	}
	switch code := api.APIError().ErrorCode; code {
	case codeWrongLastSequence:
		return errTaken
	case codeSequenceInFlight, codeMsgIDInFlight, jetstreamext.JSErrCodeBatchPublishDuplicateMsgID:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case codeStoreFailed:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case codeAccountLimit, codeServerLimit:
		return fault.WithHint(fmt.Errorf("%w by a limit of the nats-server: %w", ErrFull, err),
			"raise the server's limit for the account (max_file) or for itself (max_file_store) and reload it, or lower bus.retention; what waits is stored by itself then")
	case codeMessageTooLarge, codeHeaderTooLarge:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case codeTooManyRequests, codeBatchTooManyOpened:
		return fmt.Errorf("the server is busy: %w", err)
	}
	return err
}
