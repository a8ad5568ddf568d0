package sender

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

const (
	// turnTime is how long the server keeps a turn that is not renewed.
	turnTime = 5 * time.Second
	// turnMargin is how much earlier its holder stops.
	turnMargin = time.Second
	// turnTry is how often a turn is asked for.
	turnTry = 500 * time.Millisecond
)

// pace bounds the alerts a second of a job over all senders. One process at a time has the job's turn, a key that
// the server removes when it was not renewed for five seconds, by its own clock; its holder counts from
// before it asked, so two never have it together, whatever their clocks say. The holder then takes permits from
// a limiter of its own: in any second at most the rate. It is used by one lane.
type pace struct {
	bus      *bus.Bus
	subject  string
	instance string
	limiter  *rate.Limiter

	revision uint64 // of the key, while this process may hold it
	until    time.Time
	tried    time.Time
}

func newPace(b *bus.Bus, job, instance string, perSecond int) *pace {
	// What may come at once is taken off the steady rate, so that no second has more.
	burst := max(1, perSecond/20)
	steady := perSecond
	if burst > 1 {
		steady -= burst
	}
	return &pace{
		bus: b, subject: proto.BucketSubject(proto.BucketJobs, proto.JobTurnKey(job)), instance: instance,
		limiter: rate.NewLimiter(rate.Limit(steady), burst),
	}
}

// hold takes or renews the turn and reports whether this process has it.
func (p *pace) hold(ctx context.Context) bool {
	now := time.Now()
	held := now.Before(p.until)
	if held && p.until.Sub(now) > turnTime/2 || now.Sub(p.tried) < turnTry {
		return held
	}
	p.tried = now
	ctx, cancel := context.WithTimeout(ctx, turnMargin)
	defer cancel()
	ack, err := p.bus.JetStream().Publish(ctx, p.subject, []byte(p.instance),
		jetstream.WithExpectLastSequencePerSubject(p.revision), jetstream.WithMsgTTL(turnTime), jetstream.WithRetryAttempts(0))
	switch {
	case err == nil:
		p.revision, p.until = ack.Sequence, now.Add(turnTime-turnMargin)
	case bus.Conflict(err):
		// It has run out, or it is another's. What a lost answer hides runs out too.
		p.revision = 0
	}
	return time.Now().Before(p.until)
}

// take gives at most n permits for now.
func (p *pace) take(n int) int {
	now := time.Now()
	if !now.Before(p.until) {
		return 0
	}
	n = min(n, int(p.limiter.TokensAt(now)))
	if n > 0 && p.limiter.AllowN(now, n) {
		return n
	}
	return 0
}
