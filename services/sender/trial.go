package sender

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/devo"
	"defenderiot/pkg/trial"
	"defenderiot/proto"
)

// TrialWork names [Try] for [trial.Enter], without which a message that ends the process is not put aside.
const TrialWork = "sender"

// What a message is tried with: the level of compression, 0 for none, and whether it is a dead letter.
const (
	trialLevel  = 0x0f
	trialLetter = 0x10
	// trialMember is the most that a member holds in a trial; a frame that is larger is a member all the same.
	trialMember = 1 << 20
)

// Try does with one message what depends on its bytes.
func Try(option byte, message []byte) {
	f := feed{stream: proto.StreamUnique}
	if option&trialLetter != 0 {
		f.stream = proto.StreamDead
	}
	var envelopes proto.EnvelopeReader
	_, frame, err := f.appendFrame(nil, &envelopes, message)
	if err != nil || option&trialLevel == 0 {
		return
	}
	if gzip := trialGzip(int(option & trialLevel)); gzip != nil {
		_ = gzip.AppendMembers(nil, frame)
	}
}

// gzips are kept by level, because making one costs more than an alert.
var gzips sync.Map

func trialGzip(level int) *devo.Gzip {
	if known, ok := gzips.Load(level); ok {
		gzip, _ := known.(*devo.Gzip)
		return gzip
	}
	gzip, err := devo.NewGzip(level, trialMember)
	if err != nil {
		return nil
	}
	gzips.Store(level, gzip)
	return gzip
}

// trialOption is how the output's messages are tried.
func (o *output) trialOption() (option byte) {
	if c := o.settings.Compression; c != nil {
		option = byte(c.Level) & trialLevel
	}
	if o.feed.stream == proto.StreamDead {
		option |= trialLetter
	}
	return option
}

// suspect is a delivery that may have ended a process before.
type suspect struct {
	delivery *delivery
	meta     *jetstream.MsgMetadata
}

// suspicious reports whether a message is to be tried first: what was or may have been delivered before, and a dead
// letter.
func (o *output) suspicious(meta *jetstream.MsgMetadata) bool {
	return o.care.Needed(meta) || o.feed.stream == proto.StreamDead
}

// try returns the suspects that are sound; the others are in the dead letters, or wait. If ctx ends meanwhile, all go
// back. meanwhile is called once when it takes long: what is on an open connection must not wait for it.
func (o *output) try(ctx context.Context, suspects []suspect, meanwhile func()) (sound []suspect) {
	if len(suspects) == 0 {
		return nil
	}
	messages := make([][]byte, len(suspects))
	for i, s := range suspects {
		messages[i] = s.delivery.msg.Data()
	}
	result := make(chan map[int]error, 1)
	go func() { result <- o.trial.Try(ctx, o.trialOption(), messages) }()
	timer := time.NewTimer(quietTime)
	defer timer.Stop()
	var verdicts map[int]error
	select {
	case verdicts = <-result:
	case <-timer.C:
		meanwhile()
		verdicts = <-result
	}
	stopped := ctx.Err() != nil // not all of them are judged then
	for i, s := range suspects {
		switch verdict := verdicts[i]; {
		case stopped:
			o.giveBack([]*delivery{s.delivery}, 0)
		case verdict == nil:
			sound = append(sound, s)
		case errors.Is(verdict, trial.ErrUnjudged):
			o.giveBack([]*delivery{s.delivery}, trial.Delay(s.meta.NumDelivered))
		default:
			o.bury(ctx, s.delivery, s.meta, verdict)
		}
	}
	return sound
}

// meanwhile has what is on the open connection confirmed, as if nothing came any more.
func (l *lane) meanwhile() {
	if l.window != nil && len(l.window.held) > 0 {
		l.rotate()
	}
}
