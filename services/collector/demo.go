package collector

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	"defenderiot/services/simulator"
)

// demoEvery is how often the demo says where everything stands.
const demoEvery = 5 * time.Second

func (a *app) demoCommand() *cobra.Command {
	var rate float64
	var backfill int
	var seed uint64
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "demo", Short: "run against a built-in simulator of Azure and Devo, no configuration needed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, duration)
				defer cancel()
			}
			return a.demo(ctx, simulator.Options{
				Rate: rate, Backfill: backfill, Quota: simulator.AzureQuota(),
				Generator: simulator.GeneratorOptions{Seed: seed, RepeatEvery: 10},
			})
		},
	}
	cmd.Flags().Float64Var(&rate, "rate", 2, "new alerts a second")
	cmd.Flags().IntVar(&backfill, "backfill", 20, "alerts that are there from the beginning")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "what the alerts are made from")
	cmd.Flags().DurationVar(&duration, "duration", 0, "stop after this time (0: at ctrl-c)")
	return cmd
}

// demo runs the whole pipeline in a temporary folder. Every frame is printed as the simulated Devo
// received it.
func (a *app) demo(ctx context.Context, o simulator.Options) error {
	dir, err := os.MkdirTemp("", "collector-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	out := &lines{to: a.stdout}
	o.OnFrame = func(frame []byte) { out.print("devo <- %s\n", frame) }
	sim, err := simulator.New(o)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = sim.Close(end)
	}()
	if err := sim.Start(); err != nil {
		return err
	}
	if err := sim.WriteCerts(dir); err != nil {
		return err
	}
	text, err := sim.Config(dir, filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	c, warnings, err := config.Parse("demo.yaml", text, os.LookupEnv)
	if err != nil {
		return err
	}
	c.Telemetry.Listen = "127.0.0.1:0" // the demo must not collide with a collector that runs
	p, err := process.OpenWith(ctx, "collector", c, warnings, a.stderr)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Telemetry.SetLevel(slog.LevelWarn)
	limitMemory(p.Logger)
	fmt.Fprintf(a.stdout, "demo: simulated Azure at %s, simulated Devo at %s, state in %s\n", sim.AzureURL(), sim.Devo.Addr(), dir)
	fmt.Fprintf(a.stdout, "demo: metrics at http://%s/metrics, ctrl-c stops\n", p.Telemetry.Addr())

	pipeline := &Pipeline{Process: p, BusDir: process.BusDir(c), Console: a.stdout}
	var group sync.WaitGroup
	group.Go(func() { a.narrate(ctx, out, sim, c) })
	err = pipeline.Run(ctx)
	group.Wait()
	stats := sim.Stats()
	fmt.Fprintf(a.stdout, "demo: %d alerts in the simulated Azure, %d arrived at the simulated Devo, %d of them more than once\n",
		stats.Devo.Unique+int64(stats.Missing), stats.Devo.Unique, stats.Devo.Duplicates)
	return err
}

// narrate says at intervals where everything stands.
func (a *app) narrate(ctx context.Context, out *lines, sim *simulator.Simulator, c *config.Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(demoEvery):
		}
		b, err := process.Connect(c, "demo", slog.New(slog.DiscardHandler))
		if err != nil {
			continue // the bus is starting
		}
		s, err := ReadStatus(ctx, b, c)
		_ = b.Close(context.WithoutCancel(ctx))
		if err != nil {
			continue
		}
		stats := sim.Devo.Stats()
		for _, name := range keys(s.Outputs) {
			o := s.Outputs[name]
			out.print("demo: received %d, duplicates %d, unique %d; output %s: arrived %d, confirmed %d, pending %d, possibly resent %d, proof %s; dead letters %d\n",
				s.Events.Received, s.Events.Duplicates, s.Events.Unique, name, stats.Unique, o.Confirmed, o.Pending, o.Resent, o.Proof, s.DeadLetters)
		}
	}
}

// lines keeps lines from several goroutines apart.
type lines struct {
	mu sync.Mutex
	to interface{ Write([]byte) (int, error) }
}

func (l *lines) print(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.to, format, args...)
}
