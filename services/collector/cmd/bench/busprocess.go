package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
)

// serveBus runs the embedded server on the state folder of the site in dir, with every write synced, until ctx
// ends. A service with that site's configuration finds it there.
func serveBus(ctx context.Context, dir string) error {
	c, _, err := config.Load(config.Options{Path: filepath.Join(dir, "config.yaml"), Workdir: dir})
	if err != nil {
		return err
	}
	server, err := embedded.Start(embedded.Settings{Dir: process.BusDir(c), Listen: "127.0.0.1:0", Logger: discard})
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			waiting = false
		case <-asked: // by settledMemory
			debug.FreeOSMemory()
		}
	}
	return server.Shutdown(context.WithoutCancel(ctx))
}

// busProcess is serveBus as a process of its own, so that what the server uses can be told from what its
// client uses.
type busProcess struct{ cmd *exec.Cmd }

func startBus(ctx context.Context, s *site) (*busProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &busProcess{cmd: exec.CommandContext(ctx, self, "-bus", s.dir)}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := bus.ReadConnection(process.BusDir(s.config))
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("the bus did not start: %w", err), p.stop())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *busProcess) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(err, p.cmd.Wait())
	}
	return p.cmd.Wait()
}

// tick is what the kernel counts processor time in for /proc, on every architecture.
const tick = 10 * time.Millisecond

// processorTime is what a running process has used so far, user and system, to the tick.
func processorTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The program's name is in brackets and may hold anything; utime and stime are the 12th and 13th behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, err
}

// ownTime is what this process has used so far.
func ownTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
