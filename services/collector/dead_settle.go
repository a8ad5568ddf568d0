package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/reconcile"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
)

// perJob bounds the letters that one job sends: their payloads are looked at before it starts.
const perJob = 1000

// retrying is one `dead retry`. A letter is removed only when what it holds is stored at the stage below, or
// confirmed at its output; whatever dies in between, the letter is still there, and trying it again is harmless.
type retrying struct {
	*app
	bus    *bus.Bus
	config *config.Config
	input  string

	toDedup   []Letter
	toSender  map[string][]Letter // by output
	toFetcher []Letter
	since     time.Time // the earliest start among toFetcher
	left      int
}

func (a *app) deadRetry(ctx context.Context, c choice, input string, dryRun bool) error {
	conf, b, end, err := a.deadBus(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	r := &retrying{app: a, bus: b, config: conf, input: input, toSender: map[string][]Letter{}}
	n := 0
	if err := c.letters(ctx, b, func(l Letter) error { n++; r.sort(l); return nil }); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "chosen  %d: %d of the fetcher, %d of dedup, %d of the sender, %d that cannot be tried\n",
		n, len(r.toFetcher), len(r.toDedup), count(r.toSender), r.left)
	if dryRun {
		return nil
	}
	if err := r.dedup(ctx); err != nil {
		return err
	}
	for _, output := range keys(r.toSender) {
		if err := r.sender(ctx, output, r.toSender[output]); err != nil {
			return err
		}
	}
	if err := r.fetcher(ctx); err != nil {
		return err
	}
	if r.left > 0 {
		return fault.WithHint(fmt.Errorf("%d letters stay", r.left), "the reasons are above; `collector dead show` has all of a letter, `collector dead drop` gives it up")
	}
	return nil
}

func count(of map[string][]Letter) (n int) {
	for _, letters := range of {
		n += len(letters)
	}
	return n
}

// stays says why a letter is not tried.
func (r *retrying) stays(l Letter, why error) {
	r.left++
	fmt.Fprintf(r.stdout, "stays   %d: %v\n", l.Letter, why)
}

// sort looks at what can be done with a letter.
func (r *retrying) sort(l Letter) {
	var err error
	switch l.Stage {
	case proto.StageSender:
		if _, err = replay.Retriable(l.letter); err == nil {
			l.letter.Payload = nil // the senders read it themselves
			r.toSender[l.Output] = append(r.toSender[l.Output], l)
		}
	case proto.StageDedup:
		if _, err = proto.DecodeEnvelope(l.letter.Payload); err == nil {
			l.letter.Payload = nil // read when its turn comes: there may be many
			r.toDedup = append(r.toDedup, l)
		}
	case proto.StageFetcher:
		var start time.Time
		if start, err = startOf(l.letter); err == nil {
			if r.since.IsZero() || start.Before(r.since) {
				r.since = start
			}
			l.letter.Payload = nil // read again from Azure
			r.toFetcher = append(r.toFetcher, l)
		}
	default:
		err = errors.New(l.Reason)
	}
	if err != nil {
		r.stays(l, err)
	}
}

// startOf is when the alert in a letter of the fetcher started.
func startOf(d *proto.DeadLetter) (time.Time, error) {
	var row struct {
		ID         string `json:"id"`
		Properties struct {
			Start time.Time `json:"startTimeUtc"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(d.Payload, &row); err != nil || row.Properties.Start.IsZero() {
		return time.Time{}, errors.New("it does not say when its alert started; `collector checkpoint reset --to TIME` reads everything from a time on again")
	}
	return row.Properties.Start, nil
}

// dedup puts messages back into RAW. The header lets them own a claim that they made before they failed.
func (r *retrying) dedup(ctx context.Context) error {
	if len(r.toDedup) == 0 {
		return nil
	}
	stream, err := r.bus.Stream(ctx, proto.StreamDead)
	if err != nil {
		return fmt.Errorf("stream DEAD: %w", err)
	}
	for _, l := range r.toDedup {
		stored, err := stream.GetMsg(ctx, l.Letter)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // another command was faster
		}
		if err != nil {
			return fmt.Errorf("letter %d: %w", l.Letter, err)
		}
		letter, err := proto.DecodeDeadLetter(stored.Data)
		if err != nil {
			return fmt.Errorf("letter %d: %w", l.Letter, err)
		}
		e, err := proto.DecodeEnvelope(letter.Payload)
		if err != nil {
			return fmt.Errorf("letter %d: %w", l.Letter, err)
		}
		m := bus.Message{Subject: proto.RawSubject(e.Source), Data: letter.Payload, MsgID: "again/" + letter.MsgID()}
		if claimed := letter.Claimed(); claimed > 0 {
			m.Header = nats.Header{proto.HeaderRawSequence: {strconv.FormatUint(claimed, 10)}}
		}
		if err := r.bus.PublishBatch(ctx, proto.StreamRaw, []bus.Message{m}); err != nil {
			return fmt.Errorf("letter %d: %w", l.Letter, err)
		}
		if err := r.bus.RemoveDeadLetter(ctx, l.Letter); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.stdout, "dedup   %d are in RAW again\n", len(r.toDedup))
	return nil
}

// sender sends alerts to the output that did not get them, by jobs of the running senders.
func (r *retrying) sender(ctx context.Context, output string, letters []Letter) error {
	for len(letters) > 0 {
		part := letters[:min(perJob, len(letters))]
		letters = letters[len(part):]
		sequences := make([]uint64, len(part))
		for i, l := range part {
			sequences[i] = l.Letter
		}
		id, err := replay.StartDead(ctx, r.bus, output, sequences)
		if err != nil {
			return err
		}
		result, err := r.await(ctx, id)
		if err != nil {
			return fault.WithHint(fmt.Errorf("job %s: %w", id, err), "the senders go on with it; the letters are removed by the same command again, which sends nothing twice while that job runs")
		}
		if result.Dead+result.Missing > 0 {
			r.left += len(part)
			fmt.Fprintf(r.stdout, "stays   %d of output %s: %d of them could not be sent\n", len(part), output, result.Dead+result.Missing)
			continue
		}
		for _, sequence := range sequences {
			if err := r.bus.RemoveDeadLetter(ctx, sequence); err != nil {
				return err
			}
		}
		fmt.Fprintf(r.stdout, "sender  %d are confirmed at %s\n", len(part), output)
	}
	return nil
}

// await returns the result of a job when it is done.
func (r *retrying) await(ctx context.Context, id string) (proto.JobResult, error) {
	for {
		e, err := replay.Read(ctx, r.bus, id)
		switch {
		case err != nil:
			return proto.JobResult{}, err
		case e.State == proto.JobCancelled:
			return proto.JobResult{}, errors.New("it was cancelled")
		case e.State == proto.JobDone && e.Result != nil:
			return *e.Result, nil
		}
		select {
		case <-ctx.Done():
			return proto.JobResult{}, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// fetcher has the rows read again, since a letter holds them masked. The letters go first: a row that fails again
// makes a new one, and one that is never read again here is read by the daily sweep.
func (r *retrying) fetcher(ctx context.Context) error {
	if len(r.toFetcher) == 0 {
		return nil
	}
	source, err := one(r.config, r.input)
	if err != nil {
		return err
	}
	p, err := open(ctx, r.bus, false, func() {})
	if err != nil {
		return err
	}
	next := func(b base) (*proto.Checkpoint, error) {
		to := r.since
		if b.record != nil && to.After(b.record.LastEventTime) {
			to = b.record.LastEventTime
		}
		return resetTo(source, b, to, false, time.Now().UTC())
	}
	// What would refuse it refuses it before a letter is removed.
	b, err := p.read(ctx, source)
	if err != nil {
		return err
	}
	if _, err := next(b); err != nil {
		return err
	}
	for _, l := range r.toFetcher {
		if err := r.bus.RemoveDeadLetter(ctx, l.Letter); err != nil {
			return err
		}
	}
	if _, _, _, err := p.change(ctx, source, next); err != nil {
		return fault.WithHint(err, fmt.Sprintf("the letters are removed; `collector checkpoint reset --to %s` has their rows read again, and so has the daily sweep", moment(r.since)))
	}
	fmt.Fprintf(r.stdout, "fetcher %d are read again, from %s on\n", len(r.toFetcher), moment(r.since))
	return nil
}

func (a *app) deadDrop(ctx context.Context, c choice, dryRun, yes bool) error {
	_, b, end, err := a.deadBus(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	var chosen, claimed []uint64
	choose := func(l Letter) error {
		chosen = append(chosen, l.Letter)
		if raw := l.letter.Claimed(); raw > 0 {
			claimed = append(claimed, raw)
		}
		return nil
	}
	if err := c.letters(ctx, b, choose); err != nil {
		return err
	}
	if dryRun || len(chosen) == 0 {
		fmt.Fprintf(a.stdout, "chosen  %d\n", len(chosen))
		return nil
	}
	if !yes {
		return fault.WithHint(fmt.Errorf("%d letters would be removed, and what they hold is not delivered", len(chosen)), "the same with --yes removes them")
	}
	// First, else the keeper takes the alerts for lost and has them fetched again.
	if len(claimed) > 0 {
		var raw proto.Sequences
		raw.AddAll(claimed)
		if _, err := reconcile.Silence(ctx, b, raw); err != nil {
			return err
		}
	}
	for _, sequence := range chosen {
		if err := b.RemoveDeadLetter(ctx, sequence); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stdout, "dropped %d\n", len(chosen))
	return nil
}
