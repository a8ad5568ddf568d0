// Bench measures the collector as a person would run it: the real program as a process of its own, with
// its embedded server and every write synced, against the simulator in this process. It prints each
// figure with the machine it was taken on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bin := flag.String("bin", "bin", "folder of the built programs")
	alerts := flag.Int("alerts", 100_000, "alerts in each run")
	only := flag.String("only", "", "run only the measurements whose names contain this")
	profiles := flag.String("profiles", "", "folder for a CPU profile of the collector in each of pipeline and source")
	floorDir := flag.String("floor", "", "internal: be the floor on this folder")
	busDir := flag.String("bus", "", "internal: be the bus on this folder")
	receivers := flag.String("peers", "", "compare the sender alone with the rsyslog in this folder, which deploy/test/receivers-install.sh fills, and nothing else")
	size := flag.Int("size", 1500, "with -peers: bytes of an alert, roughly, at least 1500")
	flag.Parse()
	switch {
	case *floorDir != "":
		return report(floor(ctx, *floorDir))
	case *busDir != "":
		return report(serveBus(ctx, *busDir))
	}
	b := &bench{collector: filepath.Join(*bin, "collector"), alerts: *alerts, profiles: *profiles}
	fmt.Println(machine(ctx))
	if *receivers != "" {
		return report(comparePeers(ctx, *bin, *receivers, *alerts, *size))
	}
	var errs []error
	for _, m := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"pipeline", b.pipeline},
		{"floor", b.floor},
		{"source", b.source},
		{"quota", b.quota},
		{"latency", b.latency},
		{"replay", b.replay},
		{"scale", b.scale},
		{"obfuscation", b.obfuscation},
		{"capacity", b.capacity},
	} {
		if !strings.Contains(m.name, *only) || ctx.Err() != nil {
			continue
		}
		if err := m.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return report(errors.Join(errs...))
}

func report(err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		return 1
	}
	return 0
}

// machine says what the figures were taken on, and how fast its disk syncs.
func machine(ctx context.Context) string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	kernel, _ := exec.CommandContext(ctx, "uname", "-sr").Output()
	return fmt.Sprintf("machine: %s, %d processors, %s, %s, fsync %s", model, runtime.NumCPU(),
		strings.TrimSpace(string(kernel)), runtime.Version(), syncTime())
}

// syncTime is the median of a 1.5 KB write with fsync in the folder where the state will be.
func syncTime() string {
	f, err := os.CreateTemp("", "bench-sync-")
	if err != nil {
		return "unknown"
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a temporary file
	defer f.Close()           //nolint:errcheck // a temporary file
	var times []time.Duration
	for range 101 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 1500)); err != nil {
			return "unknown"
		}
		if err := f.Sync(); err != nil {
			return "unknown"
		}
		times = append(times, time.Since(start))
	}
	return median(times).Round(10 * time.Microsecond).String()
}
