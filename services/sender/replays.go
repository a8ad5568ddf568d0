package sender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/replay"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// jobPeriod is how often a sender looks for jobs, and at how far they are.
const jobPeriod = time.Second

// replaying is one job that this process works on.
type replaying struct {
	id   string
	stop context.CancelFunc
	done chan struct{}
}

// replays works on the output's jobs until ctx ends: at most one of each kind at a time, the oldest. All
// senders see the same order, so they work on the same one together. It only reads the records, which takes no
// right to create anything, and no watch that could miss a change.
func (o *output) replays(ctx context.Context) {
	trouble := telemetry.NewIncident(o.logger, "looking for replay jobs of output "+o.settings.Name)
	running := map[string]*replaying{} // by kind
	for pause(ctx, jobPeriod) {
		round, cancel := context.WithTimeout(ctx, touchPeriod)
		jobs, err := replay.Jobs(round, o.bus)
		cancel()
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil:
			trouble.Report(err)
			if len(jobs) == 0 {
				continue // nobody knows what is running
			}
		default:
			trouble.Resolve()
		}
		next := map[string]replay.Entry{}
		for _, j := range jobs {
			if _, found := next[j.Kind]; !found && j.Output == o.settings.Name && j.State == proto.JobRunning {
				next[j.Kind] = j
			}
		}
		for kind, r := range running {
			select {
			case <-r.done:
				delete(running, kind)
			default:
				if next[kind].ID != r.id {
					r.stop()
				}
			}
		}
		for kind, j := range next {
			if running[kind] == nil {
				running[kind] = o.begin(ctx, j)
			}
		}
	}
	for _, r := range running {
		<-r.done
	}
}

// begin starts the work on a job.
func (o *output) begin(ctx context.Context, j replay.Entry) *replaying {
	ctx, stop := context.WithCancel(ctx)
	r := &replaying{id: j.ID, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer stop()
		trouble := telemetry.NewIncident(o.logger, fmt.Sprintf("replay job %s to output %s", j.ID, o.settings.Name))
		for {
			selection, err := replay.LoadSelection(ctx, o.bus, &j.Job)
			if err == nil {
				trouble.Resolve()
				o.replay(ctx, j, selection, trouble, stop)
				return
			}
			if ctx.Err() == nil {
				trouble.Report(err)
			}
			if !pause(ctx, maxBackoff) {
				return
			}
		}
	}()
	return r
}

// replay works on a job until ctx ends, which finished brings about when the job is done.
func (o *output) replay(ctx context.Context, j replay.Entry, selection proto.Sequences, trouble *telemetry.Incident, finished func()) {
	o.logger.Info("replay job: sending again", "job", j.ID, "kind", j.Kind, "output", o.settings.Name, "alerts", j.Selected)
	of := &selected{sequences: selection}
	connections := o.settings.Connections
	if j.Rate > 0 {
		// One connection of one process is fast enough for any rate, and its limiter is the only one.
		of.pace, connections = newPace(o.bus, j.ID, o.instance, j.Rate), 1
	}
	again := o.again(j, of)
	again.work(ctx, connections, func(settle context.Context) { again.follow(settle, j, trouble, finished) })
}

// again is the output for a job: the same endpoint, and what is known about it, with deliveries of its own.
func (o *output) again(j replay.Entry, of *selected) *output {
	name := proto.JobLedger(j.ID)
	return &output{
		settings: o.settings, instance: o.instance, bus: o.bus, ledger: ledger.Open(o.bus, name, o.instance),
		feed: &feed{
			stream: j.Stream, consumer: proto.JobConsumer(j.ID), ledger: name, job: of,
			remedy: fmt.Sprintf("end the job with `collector replay cancel %s` and start it anew", j.ID),
		},
		inflight: newInflight(), care: o.care.Another(), trial: o.trial, proof: o.proof, manners: o.manners, tally: o.tally, compression: o.compression,
		certificates: o.certificates, logger: o.logger, tracer: o.tracer, metrics: o.metrics, label: o.label,

		delivery: telemetry.NewIncident(o.logger, fmt.Sprintf("delivery of %s to %s (%s)", name, o.settings.Name, o.settings.where())),
		trouble:  telemetry.NewIncident(o.logger, "taking alerts of "+name),
		newer:    o.newer, poison: o.poison,
	}
}

// follow keeps the job's ledger alive and ends the job when everything in it is settled.
func (o *output) follow(ctx context.Context, j replay.Entry, trouble *telemetry.Incident, finished func()) {
	f := follower{output: o, job: j}
	for pause(ctx, jobPeriod) {
		round, cancel := context.WithTimeout(ctx, touchPeriod)
		done, err := f.look(round)
		cancel()
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errJobEnded), done:
			finished()
		case err != nil:
			trouble.Report(err)
		default:
			trouble.Resolve()
		}
	}
}

// errJobEnded: the job ended elsewhere.
var errJobEnded = errors.New("the job has ended")

// follower is what is remembered from look to look.
type follower struct {
	output  *output
	job     replay.Entry
	touched time.Time
	idle    int // looks in a row at which the consumer had nothing left
}

// look reports whether the job is done, and stores that if it is.
func (f *follower) look(ctx context.Context) (done bool, err error) {
	o, j := f.output, f.job
	consumer, err := o.bus.Consumer(ctx, o.feed.stream, o.feed.consumer)
	if err != nil {
		if now, readErr := replay.Read(ctx, o.bus, j.ID); readErr == nil && now.State != proto.JobRunning {
			return false, errJobEnded
		}
		return false, fault.WithHint(fmt.Errorf("consumer %s: %w", o.feed.consumer, err), o.feed.remedy)
	}
	info := consumer.CachedInfo()
	floor := info.AckFloor.Stream
	if info.NumPending > 0 || info.NumAckPending > 0 {
		f.idle = 0
	} else if f.idle++; f.idle > 1 {
		// Everything that is in the stream was delivered and acknowledged, and nothing is acknowledged before the
		// ledger has it: what else was selected is no longer there.
		floor = max(floor, j.Last)
	}
	if f.idle > 1 || time.Since(f.touched) > touchPeriod {
		if err := o.ledger.Touch(ctx, floor); err != nil {
			return false, err
		}
		f.touched = time.Now()
	}
	p, err := replay.ReadProgress(ctx, o.bus, &j.Job, &o.feed.job.sequences)
	if err != nil || !p.Complete(&j.Job) {
		return false, err
	}
	if err := replay.Finish(ctx, o.bus, j, p); err != nil {
		return false, err
	}
	o.logger.Info("replay job: done", "job", j.ID, "output", o.settings.Name, "confirmed", p.Settled-p.Dead, "possibly_resent", p.Resent)
	return true, nil
}
