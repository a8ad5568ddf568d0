package bus_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// TestGetTellsWhatIsNotThere: what the leader has comes whole; what it has not is told apart from every other trouble.
func TestGetTellsWhatIsNotThere(t *testing.T) {
	b := bustest.New(t, bustest.Topology())
	ctx := bustest.Context(t)
	const subject = "alerts.raw.a.b.c"
	if err := b.PublishBatch(ctx, proto.StreamRaw, []bus.Message{{Subject: subject, Data: []byte("x"), MsgID: "id"}}); err != nil {
		t.Fatal(err)
	}
	bySequence, err := b.Get(ctx, proto.StreamRaw, 1)
	if err != nil {
		t.Fatal(err)
	}
	bySubject, err := b.GetLast(ctx, proto.StreamRaw, subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*jetstream.RawStreamMsg{bySequence, bySubject} {
		if m.Subject != subject || m.Sequence != 1 || string(m.Data) != "x" || m.Header.Get("Nats-Msg-Id") != "id" || m.Time.IsZero() {
			t.Errorf("%+v", m)
		}
	}
	if _, err := b.Get(ctx, proto.StreamRaw, 2); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("no such sequence: %v", err)
	}
	if _, err := b.GetLast(ctx, proto.StreamRaw, subject+"x"); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("no such subject: %v", err)
	}
	if _, err := b.Get(ctx, "OTHER", 1); err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("no such stream: %v", err)
	}
}
