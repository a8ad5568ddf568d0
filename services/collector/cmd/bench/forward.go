package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"defenderiot/pkg/process"
	"defenderiot/services/simulator"
)

// stall is how long nothing may arrive before the rest counts as missing.
const stall = 20 * time.Second

// peers compares the sender alone with rsyslog: each forwards the same lines to an endpoint of its own.
type peers struct {
	sender  string
	rsyslog *rsyslog
	lines   *lines
}

// delivery is one run of one forwarder. Times begin with the start of its process.
type delivery struct {
	arrival    time.Duration // of the last line
	flow       time.Duration // from the first arrival to the last
	confirmed  time.Duration // 0: it does not know
	cpu        time.Duration // of the forwarder
	busCPU     time.Duration
	sinkCPU    time.Duration // the endpoint's and this program's, which does nothing else meanwhile
	peak       float64
	busPeak    float64
	arrived    int64 // different ones
	duplicates int64
	resent     uint64 // as the sender itself counts
	identical  bool   // every line arrived once and byte for byte
}

// complete waits until n different alerts have arrived, or nothing more does, and returns when the last one
// arrived. What is missing then is in the endpoint's figures.
func (s *site) complete(ctx context.Context, n int64) (time.Time, error) {
	began := time.Now()
	for {
		frames := s.frames.Load()
		if frames >= n && s.sim.Devo.Stats().Unique >= n {
			return time.Unix(0, s.last.Load()), nil
		}
		seen := began
		if frames > 0 {
			seen = time.Unix(0, s.last.Load())
		}
		switch {
		case ctx.Err() != nil:
			return time.Time{}, ctx.Err()
		case time.Since(seen) > stall && frames == 0:
			return time.Time{}, fmt.Errorf("nothing arrived within %v", stall)
		case time.Since(seen) > stall:
			return seen, nil
		}
		time.Sleep(time.Millisecond)
	}
}

// measure runs cmd until everything has arrived at the site and after has returned; then it stops it.
func (p *peers) measure(ctx context.Context, got *digest, s *site, cmd *exec.Cmd, after func(began time.Time, d *delivery) error) (d delivery, err error) {
	sinkBefore, err := ownTime()
	if err != nil {
		return d, err
	}
	r := &running{cmd: cmd, started: time.Now()}
	cmd.Stderr = r
	if err := cmd.Start(); err != nil {
		return d, fmt.Errorf("%w (make build and deploy/test/receivers-install.sh make the programs)", err)
	}
	last, err := s.complete(ctx, int64(p.lines.count))
	if err != nil {
		return d, errors.Join(err, kill(r))
	}
	sinkAfter, err := ownTime()
	if err == nil {
		err = after(r.started, &d)
	}
	if err != nil {
		return d, errors.Join(err, kill(r))
	}
	if d.cpu, d.peak, err = r.stop(); err != nil {
		return d, errors.Join(err, kill(r))
	}
	stats := s.sim.Devo.Stats()
	d.arrival, d.flow, d.sinkCPU = last.Sub(r.started), last.Sub(time.Unix(0, s.first.Load())), sinkAfter-sinkBefore
	d.arrived, d.duplicates = stats.Unique, stats.Duplicates
	d.identical = got.equal(&p.lines.sum)
	return d, nil
}

func (p *peers) forwardSender(ctx context.Context) (d delivery, err error) {
	var got digest
	s, err := newSite(simulator.Options{OnFrame: got.add}, slow)
	if err != nil {
		return d, err
	}
	defer s.close()
	if err := os.CopyFS(process.BusDir(s.config), os.DirFS(p.lines.state())); err != nil {
		return d, err
	}
	syscall.Sync() // the copy is not to be written out during the run
	server, err := startBus(ctx, s)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	busBefore, err := processorTime(server.cmd.Process.Pid)
	if err != nil {
		return d, err
	}
	program, err := filepath.Abs(p.sender)
	if err != nil {
		return d, err
	}
	cmd := exec.CommandContext(ctx, program, "--config", filepath.Join(s.dir, "config.yaml"))
	cmd.Dir = s.dir
	return p.measure(ctx, &got, s, cmd, func(began time.Time, d *delivery) error {
		at, view, err := s.confirmed(ctx, uint64(p.lines.count))
		if err != nil {
			return err
		}
		d.confirmed, d.resent, d.busPeak = at.Sub(began), view.Counters.Resent, peak(server.cmd.Process.Pid)
		busAfter, err := processorTime(server.cmd.Process.Pid)
		d.busCPU = busAfter - busBefore
		return err
	})
}

func (p *peers) forwardRsyslog(ctx context.Context, driver string) (d delivery, err error) {
	var got digest
	s, err := newSite(simulator.Options{OnFrame: got.add}, slow)
	if err != nil {
		return d, err
	}
	defer s.close()
	cmd, err := p.rsyslog.command(ctx, s, driver, p.lines.file())
	if err != nil {
		return d, err
	}
	syscall.Sync()
	return p.measure(ctx, &got, s, cmd, func(time.Time, *delivery) error { return nil })
}
