package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"defenderiot/pkg/ledger"
	"defenderiot/pkg/process"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

const (
	replayRuns = 3
	// replayGoal is alerts a second that one sender process reads, sends and has confirmed.
	replayGoal = 20_000
)

// repetition is one replay of everything that was delivered. Times begin with the start of the command.
type repetition struct {
	counted   time.Duration // the job runs
	confirmed time.Duration
	cpu       time.Duration // of the sender
	busCPU    time.Duration
	sinkCPU   time.Duration
	peak      float64
	resent    uint64
	same      bool // byte for byte what was delivered before
}

// replay has one sender process send again what it has delivered: `collector replay` over all of it.
func (b *bench) replay(ctx context.Context) error {
	l, err := newLines(ctx, b.alerts, 1500)
	defer os.RemoveAll(l.dir) //nolint:errcheck // a temporary folder
	if err != nil {
		return err
	}
	var runs []repetition
	for range replayRuns {
		r, err := b.sendAgain(ctx, l)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(x, y repetition) int { return cmp.Compare(x.flow(), y.flow()) })
	m := runs[len(runs)/2]
	rate := func(d time.Duration) float64 { return float64(b.alerts) / d.Seconds() }
	perThousand := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.alerts) }
	fmt.Printf("replay: %d delivered alerts again by one sender process, median of %d runs: %.0f alerts/s read, sent and confirmed from the start of the job on (%.0f to %.0f; goal %d); the whole command, which counts first for %.2f s: %.2f s; CPU a 1,000: %.4f s the sender's, %.4f s the bus's, %.4f s the endpoint's; peak memory of the sender %.0f MiB; possibly resent %d; bytes identical: %t\n",
		b.alerts, len(runs), rate(m.flow()), rate(runs[len(runs)-1].flow()), rate(runs[0].flow()), replayGoal,
		m.counted.Seconds(), m.confirmed.Seconds(), perThousand(m.cpu), perThousand(m.busCPU), perThousand(m.sinkCPU), m.peak, m.resent, m.same)
	return nil
}

// flow is how long the job took.
func (r repetition) flow() time.Duration { return r.confirmed - r.counted }

func (b *bench) sendAgain(ctx context.Context, l *lines) (r repetition, err error) {
	var got digest
	s, err := newSite(simulator.Options{OnFrame: got.add}, slow)
	if err != nil {
		return r, err
	}
	defer s.close()
	if err := os.CopyFS(process.BusDir(s.config), os.DirFS(l.state())); err != nil {
		return r, err
	}
	syscall.Sync() // the copy is not to be written out during the run
	server, err := startBus(ctx, s)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	sender, err := b.program(ctx, s, "sender", "--config", filepath.Join(s.dir, "config.yaml"))
	if err != nil {
		return r, err
	}
	live := &running{cmd: sender}
	sender.Stderr = live
	if err := sender.Start(); err != nil {
		return r, err
	}
	defer func() {
		_, _, stopErr := live.stop()
		err = errors.Join(err, stopErr)
	}()
	if _, _, err := s.confirmed(ctx, uint64(l.count)); err != nil {
		return r, err
	}
	time.Sleep(2 * time.Second) // until the delivery's own tail is over
	before := got.count.Load()
	used := make([]time.Duration, 3)
	if err := usage(used, sender.Process.Pid, server.cmd.Process.Pid); err != nil {
		return r, err
	}
	if err := s.again(ctx, b, l.count, before, &got, &r); err != nil {
		return r, err
	}
	after := make([]time.Duration, 3)
	if err := usage(after, sender.Process.Pid, server.cmd.Process.Pid); err != nil {
		return r, err
	}
	r.cpu, r.busCPU, r.sinkCPU = after[0]-used[0], after[1]-used[1], after[2]-used[2]
	r.peak = peak(sender.Process.Pid)
	// Each of them twice now: the sum is of the same frames twice over.
	r.same = got.count.Load() == 2*l.sum.count.Load() && got.sum.Load() == 2*l.sum.sum.Load()
	return r, nil
}

// usage is what the sender, the bus and this process have used.
func usage(into []time.Duration, sender, server int) (err error) {
	var errs [3]error
	into[0], errs[0] = processorTime(sender)
	into[1], errs[1] = processorTime(server)
	into[2], errs[2] = ownTime()
	return errors.Join(errs[:]...)
}

func (b *bench) program(ctx context.Context, s *site, name string, args ...string) (*exec.Cmd, error) {
	path, err := filepath.Abs(filepath.Join(filepath.Dir(b.collector), name))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = s.dir
	return cmd, nil
}

// again runs the command and watches its job.
func (s *site) again(ctx context.Context, b *bench, n int, before int64, got *digest, r *repetition) error {
	conn, err := process.Connect(s.config, "bench", discard)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	now := time.Now().UTC()
	cmd, err := b.program(ctx, s, "collector", "replay", "--config", filepath.Join(s.dir, "config.yaml"), "--by", proto.JobByStored,
		"--from", now.AddDate(0, 0, -1).Format(time.RFC3339), "--to", now.AddDate(0, 0, 1).Format(time.RFC3339))
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.Now().Add(runLimit)
	var job replay.Entry
	for r.confirmed == 0 {
		time.Sleep(2 * time.Millisecond)
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return fmt.Errorf("replay: not done: %s", said.String())
		}
		if job.ID == "" {
			jobs, err := replay.Jobs(ctx, conn)
			if err != nil || len(jobs) == 0 || jobs[0].State == proto.JobPreparing {
				continue
			}
			job, r.counted = jobs[0], time.Since(began)
		}
		v, err := ledger.Read(ctx, conn, proto.JobLedger(job.ID))
		if err == nil && v.Counters.Confirmed >= uint64(n) {
			r.confirmed, r.resent = time.Since(began), v.Counters.Resent
		} else if e, err := replay.Read(ctx, conn, job.ID); err == nil && e.State == proto.JobDone {
			r.confirmed = time.Since(began) // the ledger went with the job
		}
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("replay: %w: %s", err, said.String())
	}
	e, err := replay.Read(ctx, conn, job.ID)
	if err != nil {
		return err
	}
	r.resent = e.Result.Resent
	if e.Result.Confirmed != uint64(n) || got.count.Load()-before != int64(n) {
		return fmt.Errorf("replay: %d of %d arrived, result %+v", got.count.Load()-before, n, e.Result)
	}
	return nil
}
