package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

const (
	// scaleLines is what is waited for, for each sender: at the endpoint's pace half a minute. More lines are
	// there than all of them take, so that no run has an end at which some have nothing left to do.
	scaleLines = 20_000
	scaleMost  = 4
	// drainBytes every drainTime is what the endpoint reads on a connection, as a distant one does.
	drainBytes = 64 << 10
	drainTime  = 50 * time.Millisecond
)

// sharing is one run of n replicas of one service.
type sharing struct {
	elapsed time.Duration
	cpu     time.Duration // of all replicas
	busCPU  time.Duration
	shares  []float64 // of each replica, of the whole
	note    string
}

// scale has 1, 2 and 4 senders share a slow endpoint, and 1, 2 and 4 dedups a backlog.
func (b *bench) scale(ctx context.Context) error {
	l, err := newLines(ctx, (scaleMost+1)*scaleLines, 1500)
	defer os.RemoveAll(l.dir) //nolint:errcheck // a temporary folder
	if err != nil {
		return err
	}
	err = b.widen(ctx, "sender", func(n int) int { return n * scaleLines }, fmt.Sprintf("an endpoint that reads %d KiB every %v on each connection", drainBytes>>10, drainTime),
		func(n int) (sharing, error) { return b.shareDelivery(ctx, l, n) })
	if err != nil {
		return err
	}
	return b.widen(ctx, "dedup", func(int) int { return b.alerts }, "a backlog in RAW, every tenth a duplicate",
		func(n int) (sharing, error) { return b.shareDedup(ctx, n) })
}

// widen runs 1, 2 and 4 replicas and prints a line for each.
func (b *bench) widen(ctx context.Context, service string, alerts func(replicas int) int, what string, run func(int) (sharing, error)) error {
	var alone float64
	for _, n := range []int{1, 2, scaleMost} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s, err := run(n)
		if err != nil {
			return fmt.Errorf("%d of %s: %w", n, service, err)
		}
		perThousand := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(alerts(n)) }
		rate := float64(alerts(n)) / s.elapsed.Seconds()
		if n == 1 {
			alone = rate
		}
		var shares []string
		for _, share := range s.shares {
			shares = append(shares, fmt.Sprintf("%.0f %%", share*100))
		}
		fmt.Printf("scale: %d x %s, %s: %.0f alerts/s, %.2f x linear; shares %s; CPU a 1,000: %.4f s the replicas', %.4f s the bus's; %s\n",
			n, service, what, rate, rate/alone/float64(n), strings.Join(shares, ", "),
			perThousand(s.cpu), perThousand(s.busCPU), s.note)
	}
	return nil
}

func (b *bench) shareDelivery(ctx context.Context, l *lines, n int) (r sharing, err error) {
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return r, err
	}
	defer s.close()
	s.sim.Devo.Fail(simulator.DevoFault{Connections: -1, ThrottleBytes: drainBytes, ThrottleEvery: drainTime})
	if err := os.CopyFS(process.BusDir(s.config), os.DirFS(l.state())); err != nil {
		return r, err
	}
	err = b.together(ctx, s, "sender", n, &r, func(conn *bus.Bus) error {
		_, view, err := s.confirmed(ctx, uint64(n*scaleLines))
		if err != nil {
			return err
		}
		r.note = fmt.Sprintf("duplicates %d, possibly resent %d", s.sim.Devo.Stats().Duplicates, view.Counters.Resent)
		r.shares, err = ledgerShares(ctx, conn, view.Counters.Confirmed)
		return err
	})
	return r, err
}

// ledgerShares is what each sender process has confirmed, by its own record, of the whole.
func ledgerShares(ctx context.Context, conn *bus.Bus, whole uint64) (shares []float64, err error) {
	records, err := conn.Lookup(ctx, proto.BucketStream(proto.BucketLedgers), []string{proto.BucketSubject(proto.BucketLedgers, proto.Token(output)+".*")})
	if err != nil {
		return nil, err
	}
	for subject, record := range records {
		own, err := proto.DecodeLedger(record.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", subject, err)
		}
		if own.Counters.Confirmed > 0 {
			shares = append(shares, float64(own.Counters.Confirmed)/float64(whole))
		}
	}
	slices.Sort(shares)
	return shares, nil
}

func (b *bench) shareDedup(ctx context.Context, n int) (r sharing, err error) {
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return r, err
	}
	defer s.close()
	unique, err := b.fillRaw(ctx, s)
	if err != nil {
		return r, err
	}
	time.Sleep(settled)
	err = b.together(ctx, s, "dedup", n, &r, func(conn *bus.Bus) error {
		for deadline := time.Now().Add(runLimit); ; time.Sleep(5 * time.Millisecond) {
			raw, err := conn.Consumer(ctx, proto.StreamRaw, proto.ConsumerDedup)
			if err != nil {
				return err
			}
			if i := raw.CachedInfo(); i.NumPending == 0 && i.NumAckPending == 0 {
				break
			}
			if time.Now().After(deadline) {
				return errors.New("RAW is not empty")
			}
		}
		stored, err := conn.Stream(ctx, proto.StreamUnique)
		if err != nil {
			return err
		}
		r.note = fmt.Sprintf("%d different ones, %d in UNIQUE", unique, stored.CachedInfo().State.Msgs)
		return nil
	})
	return r, err
}

// together starts the bus and n replicas of a service on the site and measures until done returns. Times begin
// with the start of the replicas.
func (b *bench) together(ctx context.Context, s *site, service string, n int, r *sharing, done func(*bus.Bus) error) (err error) {
	syscall.Sync() // what was prepared is not to be written out during the run
	server, err := startBus(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	conn, err := process.Connect(s.config, "bench", discard)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	busBefore, err := processorTime(server.cmd.Process.Pid)
	if err != nil {
		return err
	}
	var replicas []*running
	defer func() {
		for _, replica := range replicas {
			cpu, _, stopErr := replica.stop()
			r.cpu += cpu
			err = errors.Join(err, stopErr)
		}
	}()
	began := time.Now()
	for range n {
		var cmd *exec.Cmd
		if cmd, err = b.program(ctx, s, service, "--config", filepath.Join(s.dir, "config.yaml")); err != nil {
			return err
		}
		replica := &running{cmd: cmd}
		cmd.Stderr = replica
		if err := cmd.Start(); err != nil {
			return err
		}
		replicas = append(replicas, replica)
	}
	if err := done(conn); err != nil {
		return err
	}
	r.elapsed = time.Since(began)
	busAfter, err := processorTime(server.cmd.Process.Pid)
	r.busCPU = busAfter - busBefore
	return err
}
