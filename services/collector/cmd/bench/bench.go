package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/config"
	"defenderiot/pkg/ledger"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

const (
	output   = "devo_1"
	runLimit = 5 * time.Minute
)

// ownLog is in the tags of the collector's own log lines, which are no alerts.
var ownLog = []byte(" devo.collectors.")

type bench struct {
	collector string
	alerts    int
	profiles  string // folder; empty for none
}

// site is one run: a simulator, a folder, and the collector that runs there.
type site struct {
	dir    string
	sim    *simulator.Simulator
	config *config.Config
	last   atomic.Int64 // arrival of the last frame, Unix nanoseconds
	first  atomic.Int64
	frames atomic.Int64
}

func newSite(o simulator.Options, edit func(string) string) (*site, error) {
	s := &site{}
	look := o.OnFrame
	o.OnFrame = func(frame []byte) {
		if look != nil {
			look(frame)
		}
		if bytes.Contains(frame[:min(len(frame), 200)], ownLog) {
			return
		}
		now := time.Now().UnixNano()
		s.first.CompareAndSwap(0, now)
		s.last.Store(now)
		s.frames.Add(1)
	}
	var err error
	if s.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	if s.sim, err = simulator.New(o); err != nil {
		return nil, err
	}
	if err := errors.Join(s.sim.Start(), s.sim.WriteConfig(s.dir)); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "config.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	edited := edit(string(text)) + "telemetry:\n  listen: 127.0.0.1:0\n"
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		return nil, err
	}
	s.config, _, err = config.Load(config.Options{Path: path, Workdir: s.dir})
	return s, err
}

func (s *site) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.sim.Close(ctx)
	_ = os.RemoveAll(s.dir)
}

// running is a collector process.
type running struct {
	cmd     *exec.Cmd
	ready   chan struct{} // the line that says it runs was seen
	started time.Time
	log     strings.Builder
	mu      sync.Mutex
}

func (b *bench) start(ctx context.Context, s *site) (*running, error) {
	program, err := filepath.Abs(b.collector)
	if err != nil {
		return nil, err
	}
	r := &running{cmd: exec.CommandContext(ctx, program, "run", "--config", filepath.Join(s.dir, "config.yaml")), ready: make(chan struct{})}
	r.cmd.Dir = s.dir
	r.cmd.Stderr = r
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	select {
	case <-r.ready:
		return r, nil
	case <-time.After(time.Minute):
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		return nil, fmt.Errorf("the collector did not start: %s", r.log.String())
	}
}

// Write takes the collector's log.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Write(p)
	if r.started.IsZero() && strings.Contains(r.log.String(), "collector runs") {
		r.started = time.Now()
		close(r.ready)
	}
	return len(p), nil
}

// stop ends the collector in order and returns what it used.
func (r *running) stop() (cpu time.Duration, peakMiB float64, err error) {
	peakMiB = peak(r.cmd.Process.Pid)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, err
	}
	err = r.cmd.Wait()
	return r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime(), peakMiB, err
}

// peak is the largest resident size that a running process had, in MiB. The figure that wait gives is of
// no use here: it begins with the size of the process that started it.
func peak(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

// arrive waits until n frames have arrived and returns when the last one did.
func (s *site) arrive(ctx context.Context, n int64) (time.Time, error) {
	deadline := time.Now().Add(runLimit)
	for s.frames.Load() < n {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("%d of %d frames arrived", s.frames.Load(), n)
		}
		time.Sleep(20 * time.Millisecond) // when it arrived is noted elsewhere; looking more often takes what is measured its processor
	}
	return time.Unix(0, s.last.Load()), nil
}

// confirmed waits until the ledger says that n alerts are confirmed.
func (s *site) confirmed(ctx context.Context, n uint64) (time.Time, ledger.View, error) {
	b, err := process.Connect(s.config, "bench", discard)
	if err != nil {
		return time.Time{}, ledger.View{}, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	deadline := time.Now().Add(runLimit)
	for {
		v, err := ledger.Read(ctx, b, output)
		if err != nil {
			return time.Time{}, v, err
		}
		if v.Counters.Confirmed >= n {
			return time.Now(), v, nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, v, fmt.Errorf("%d of %d confirmed", v.Counters.Confirmed, n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// profile takes a CPU profile of a running collector in the background, if that was asked for; wait returns
// when it is written.
func (b *bench) profile(r *running, name string) (wait func() error) {
	if b.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- r.profile(filepath.Join(b.profiles, name+".pprof")) }()
	return func() error { return <-done }
}

func (r *running) profile(path string) error {
	r.mu.Lock()
	_, rest, _ := strings.Cut(r.log.String(), "telemetry=")
	r.mu.Unlock()
	address := strings.Fields(rest + " ?")[0]
	client := http.Client{Timeout: time.Minute}
	res, err := client.Get("http://" + address + "/debug/pprof/profile?seconds=5")
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read to its end
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, data)
	}
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(path, data, 0o644)
}

var discard = slog.New(slog.DiscardHandler)

// provisioned runs the embedded server on the site's folder while fill works on it.
func (s *site) provisioned(ctx context.Context, fill func(*bus.Bus) error) error {
	server, err := embedded.Start(embedded.Settings{Dir: process.BusDir(s.config), Listen: "127.0.0.1:0", Logger: discard})
	if err != nil {
		return err
	}
	defer func() { _ = server.Shutdown(context.WithoutCancel(ctx)) }()
	to := server.Connection()
	conn, err := bus.Connect(bus.Settings{InProcess: server.InProcess(), User: to.User, Password: to.Secret(), Name: "bench", Logger: discard})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Provision(ctx, process.Topology(s.config), false); err != nil {
		return err
	}
	return fill(conn)
}

var source = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

// envelope is a row as the fetcher would publish it in a pull that started at pull.
func envelope(row simulator.Row, pull time.Time) proto.Envelope {
	start, _ := row.Start()
	return proto.Envelope{
		Row: row.JSON, Hash: proto.HashIdentity(row.ID()), HashVersion: proto.HashVersion, AlertID: proto.Identity(row.ID()),
		EventTime: start, Source: source, PullingID: pull.UnixMilli(), PullStart: pull, Generation: 1, FetchTime: pull,
		Host: "bench", Tag: "edr.microsoft_defender.iot_security.alert",
	}
}

// fillRaw puts alerts into RAW as the fetcher would, every tenth one a repeat, with no collector running.
// It returns how many different ones there are.
func (b *bench) fillRaw(ctx context.Context, s *site) (unique int, err error) {
	err = s.provisioned(ctx, func(conn *bus.Bus) error {
		unique, err = b.publishRaw(ctx, conn)
		return err
	})
	return unique, err
}

func (b *bench) publishRaw(ctx context.Context, conn *bus.Bus) (unique int, err error) {
	generator := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 1, Size: 1500})
	now := time.Now()
	var batch []bus.Message
	var earlier []simulator.Row
	for i := range b.alerts {
		var row simulator.Row
		if i%10 == 9 {
			row = earlier[(i*7919)%len(earlier)]
		} else {
			row = generator.Next()
			earlier = append(earlier, row)
		}
		e := envelope(row, now)
		data, err := e.Encode()
		if err != nil {
			return 0, err
		}
		batch = append(batch, bus.Message{Subject: proto.RawSubject(source), Data: data, MsgID: proto.RawMsgID(source, 1, now.UnixMilli(), i/1000, i, e.Hash)})
		if len(batch) == 1000 || i == b.alerts-1 {
			if err := conn.PublishBatch(ctx, proto.StreamRaw, batch); err != nil {
				return 0, err
			}
			batch = batch[:0]
		}
	}
	return len(earlier), nil
}

func median[T ~int64 | ~float64](values []T) T {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
