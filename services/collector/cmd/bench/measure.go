package main

import (
	"cmp"
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

	"defenderiot/services/simulator"
)

// settled is longer than RAW's window of duplicate ids.
const settled = 20 * time.Second

// slow makes the collector poll seldom, so that fetching does not disturb a run that is not about it.
func slow(text string) string {
	return strings.Replace(text, "request_period_in_seconds: 10", "request_period_in_seconds: 3600", 1)
}

func share(value string, period int) func(string) string {
	return func(text string) string {
		return strings.Replace(text, "request_period_in_seconds: 10", fmt.Sprintf("request_period_in_seconds: %d\n        quota_share: %s", period, value), 1)
	}
}

// pipelineRuns is odd, so that there is a run in the middle.
const pipelineRuns = 5

// outcome is one run of pipeline.
type outcome struct {
	unique       int
	elapsed      time.Duration // to the last arrival
	confirmation time.Duration // after it
	resent       uint64
	cpu          time.Duration
	peak         float64
}

// pipeline is the middle and the end: alerts wait in RAW, the collector starts.
func (b *bench) pipeline(ctx context.Context) error {
	var runs []outcome
	for range pipelineRuns {
		o, err := b.drain(ctx)
		if err != nil {
			return err
		}
		runs = append(runs, o)
	}
	slices.SortFunc(runs, func(x, y outcome) int { return cmp.Compare(x.elapsed, y.elapsed) })
	rate := func(o outcome) float64 { return float64(b.alerts) / o.elapsed.Seconds() }
	mid, best, worst := runs[len(runs)/2], runs[0], runs[len(runs)-1]
	fmt.Printf("pipeline: %d alerts waiting in RAW, %d different, to the sink over TLS, median of %d runs: %.0f alerts/s up to the last arrival (%.0f to %.0f), confirmed %d ms after it, resent %d; %.0f us CPU an alert (%.2f s a 1,000), peak %.0f MiB\n",
		b.alerts, mid.unique, len(runs), rate(mid), rate(worst), rate(best), mid.confirmation.Milliseconds(), mid.resent,
		float64(mid.cpu.Microseconds())/float64(b.alerts), mid.cpu.Seconds()/float64(b.alerts)*1000, mid.peak)
	return nil
}

func (b *bench) drain(ctx context.Context) (o outcome, err error) {
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return o, err
	}
	defer s.close()
	if o.unique, err = b.fillRaw(ctx, s); err != nil {
		return o, err
	}
	// A backlog is older than the window of duplicate ids, which the server would read at its start.
	time.Sleep(settled)
	r, err := b.start(ctx, s)
	if err != nil {
		return o, err
	}
	profiled := b.profile(r, "pipeline")
	last, err := s.arrive(ctx, int64(o.unique))
	if err != nil {
		return o, errors.Join(err, kill(r))
	}
	confirmed, view, err := s.confirmed(ctx, uint64(o.unique))
	if err := errors.Join(err, profiled()); err != nil {
		return o, errors.Join(err, kill(r))
	}
	o.elapsed, o.confirmation, o.resent = last.Sub(r.started), confirmed.Sub(last), view.Counters.Resent
	o.cpu, o.peak, err = r.stop()
	return o, err
}

// source is the whole way, from the simulated Azure without a quota.
func (b *bench) source(ctx context.Context) error {
	s, err := newSite(simulator.Options{Backfill: b.alerts, Generator: simulator.GeneratorOptions{Size: 1500}}, share("1.0", 5))
	if err != nil {
		return err
	}
	defer s.close()
	return b.whole(ctx, s, "source", "no quota,")
}

// quota is the same under the real quota, all of it ours.
func (b *bench) quota(ctx context.Context) error {
	s, err := newSite(simulator.Options{Backfill: b.alerts, Quota: simulator.AzureQuota(), Generator: simulator.GeneratorOptions{Size: 1500}}, share("1.0", 5))
	if err != nil {
		return err
	}
	defer s.close()
	return b.whole(ctx, s, "quota", "15 requests a 5 s and quota_share 1 (3,000 rows/s at most),")
}

func (b *bench) whole(ctx context.Context, s *site, name, what string) error {
	r, err := b.start(ctx, s)
	if err != nil {
		return err
	}
	profiled := b.profile(r, name)
	last, err := s.arrive(ctx, int64(b.alerts))
	if err != nil {
		return errors.Join(err, kill(r))
	}
	confirmed, _, err := s.confirmed(ctx, uint64(b.alerts))
	if err := errors.Join(err, profiled()); err != nil {
		return errors.Join(err, kill(r))
	}
	stats := s.sim.Stats()
	cpu, peak, err := r.stop()
	elapsed := last.Sub(r.started)
	fmt.Printf("%s: %s %d alerts from the simulated Azure to the sink: %.0f alerts/s up to the last arrival (%.2f s), confirmed %.0f ms after it; %d queries, %d answered 429; %.0f us CPU an alert, peak %.0f MiB\n",
		name, what, b.alerts, float64(b.alerts)/elapsed.Seconds(), elapsed.Seconds(), float64(confirmed.Sub(last).Milliseconds()),
		stats.Graph.Queries, stats.Graph.Throttled, float64(cpu.Microseconds())/float64(b.alerts), peak)
	return err
}

// latency is one alert on an idle system, again and again.
func (b *bench) latency(ctx context.Context) error {
	s, err := newSite(simulator.Options{Backfill: 1}, share("1.0", 1))
	if err != nil {
		return err
	}
	defer s.close()
	r, err := b.start(ctx, s)
	if err != nil {
		return err
	}
	if _, _, err := s.confirmed(ctx, 1); err != nil {
		return errors.Join(err, kill(r))
	}
	const rounds = 15
	var arrival, confirmation []time.Duration
	for i := range rounds {
		time.Sleep(2 * time.Second)
		s.sim.Graph.Add(s.sim.Generator.NextAt(time.Now()))
		arrived, err := s.arrive(ctx, int64(i+2))
		if err != nil {
			return errors.Join(err, kill(r))
		}
		confirmed, _, err := s.confirmed(ctx, uint64(i+2))
		if err != nil {
			return errors.Join(err, kill(r))
		}
		answered := s.answered(arrived)
		arrival = append(arrival, arrived.Sub(answered))
		confirmation = append(confirmation, confirmed.Sub(answered))
	}
	_, peak, err := r.stop()
	fmt.Printf("latency: one alert on an idle system, %d times, from the answer that held it: at the endpoint after %d ms (median; worst %d ms), confirmed after %d ms (worst %d ms); peak %.0f MiB\n",
		rounds, median(arrival).Milliseconds(), worst(arrival).Milliseconds(), median(confirmation).Milliseconds(), worst(confirmation).Milliseconds(), peak)
	return err
}

// answered is when the last query before t that gave rows arrived at the simulator; the answer left at
// most a millisecond later.
func (s *site) answered(t time.Time) time.Time {
	var at time.Time
	for _, r := range s.sim.Graph.Requests() {
		if r.Rows > 0 && !r.Time.After(t) && strings.Contains(r.Query, "startTimeUtc") {
			at = r.Time
		}
	}
	return at
}

// floor is what the pipeline is compared with: no dedup, no ledger, no confirmation, acknowledged when the
// write returns. It loses alerts when a connection breaks.
func (b *bench) floor(ctx context.Context) error {
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := b.fillRaw(ctx, s); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-floor", s.dir)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	last, err := s.arrive(ctx, int64(b.alerts))
	if err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(err, cmd.Wait())
	}
	size := peak(cmd.Process.Pid)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	err = cmd.Wait()
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fmt.Printf("floor: the same %d alerts read from RAW and written, without dedup, ledger and confirmation: %.0f alerts/s, %.0f us CPU an alert, peak %.0f MiB\n",
		b.alerts, float64(b.alerts)/last.Sub(start).Seconds(), float64(cpu.Microseconds())/float64(b.alerts), size)
	return err
}

func worst(values []time.Duration) time.Duration {
	var w time.Duration
	for _, v := range values {
		w = max(w, v)
	}
	return w
}

func kill(r *running) error {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	tail := r.log.String()
	return fmt.Errorf("%s said: %s", filepath.Base(r.cmd.Path), tail[max(0, len(tail)-2000):])
}
