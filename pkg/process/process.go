// Package process is what every program of the collector does around its service: flags, configuration,
// log, signals, the connection to the bus, and the exit code.
package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	_ "time/tzdata" // for TZ in an image that has no files of time zones

	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/telemetry"
)

// Exit codes that outside tools rely on.
const (
	ExitDone          = 0
	ExitFailure       = 1
	ExitMissing       = 253
	ExitCheckFailed   = 254
	ExitConfiguration = 255
)

// closeTime bounds what is left to do after the service has returned.
const closeTime = time.Second

// Process is what a running program has besides its service.
type Process struct {
	Config    *config.Config
	Telemetry *telemetry.Telemetry
	Logger    *slog.Logger
	// Program is the program's name, such as sender.
	Program string
	// Instance is unique to this start of the program: host name and a random part.
	Instance string
	// Collector is who the program tells Devo that it is.
	Collector internalevent.Collector
}

// Open loads the configuration, logs its warnings and starts the telemetry of a service. An error is the
// configuration's (a *fault.Error of it is in the tree), which the fetcher also tells by [Refused], or says that the
// address of the telemetry is taken.
func Open(ctx context.Context, service string, o config.Options, logOutput io.Writer) (*Process, error) {
	c, warnings, err := config.Load(o)
	if err != nil {
		// Of the separate programs one tells: all read the same file.
		if slices.Contains(counterparts[service], InputProcess) {
			Refused(ctx, c, err, logOutput)
		}
		return nil, err
	}
	p, err := OpenWith(ctx, service, c, warnings, logOutput)
	if err == nil {
		p.Found(o)
	}
	return p, err
}

// OpenWith is Open with a configuration that is loaded already.
func OpenWith(ctx context.Context, service string, c *config.Config, warnings []config.Warning, logOutput io.Writer) (*Process, error) {
	version, _, _ := telemetry.BuildVersion()
	instance := NewInstance()
	t, err := telemetry.New(ctx, telemetry.Settings{
		Service: service, Version: version, Instance: instance, Listen: c.Telemetry.Listen,
		LogFormat: c.Telemetry.LogFormat, Level: c.Level(), OTLPEndpoint: c.Telemetry.OTLPEndpoint, LogOutput: logOutput,
		Copy: c.Telemetry.InternalEvents,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		t.Logger.Warn(w.Text, "hint", w.Hint)
	}
	if err := t.Start(); err != nil {
		_ = t.Close(ctx)
		return nil, err
	}
	return &Process{Config: c, Telemetry: t, Logger: t.Logger, Program: service, Instance: instance, Collector: internalevent.Of(c)}, nil
}

// NewInstance makes a name that no other process ever has.
func NewInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "-" + strings.ToLower(rand.Text()[:10])
}

// Close flushes the telemetry.
func (p *Process) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := p.Telemetry.Close(ctx); err != nil {
		p.Logger.Warn("telemetry was not flushed", "error", err)
	}
}

// Bound connects to the bus and waits until everything that the configuration asks for is provisioned.
func (p *Process) Bound(ctx context.Context) (*bus.Bus, error) {
	b, err := Connect(p.Config, p.Instance, p.Logger)
	if err != nil {
		return nil, err
	}
	var absent atomic.Pointer[string]
	absent.Store(new("the bus"))
	p.Telemetry.Ready("bus", func() error {
		if missing := absent.Load(); missing != nil {
			return fmt.Errorf("waiting for %s", *missing)
		}
		return b.Storing()
	})
	waiting := func(missing string) {
		absent.Store(&missing)
		p.Logger.Warn("waiting for the bus", "missing", missing)
	}
	if err := b.Wait(ctx, Topology(p.Config), waiting); err != nil {
		_ = b.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	absent.Store(nil)
	if p.Config.Bus.URL != "" && p.Config.Bus.Replicas == 1 {
		WarnIfLazy(ctx, b, p.Logger)
	}
	return b, nil
}

// Main is the main function of a single service: it returns the exit code.
func Main(name, short string, run func(ctx context.Context, p *Process, b *bus.Bus) error) int {
	var o config.Options
	var health string
	version, commit, goVersion := telemetry.BuildVersion()
	root := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		Version: fmt.Sprintf("%s (commit %s, %s)", version, commit, goVersion),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if health != "" {
				return Health(ctx, o, health)
			}
			p, err := Open(ctx, name, o, os.Stderr)
			if err != nil {
				return err
			}
			defer p.Close()
			ctx, stop := restartOnChange(ctx, o, watchEvery, p.Logger)
			defer stop()
			b, err := p.Bound(ctx)
			if err != nil {
				return unlessRestart(cmd.Context(), err)
			}
			defer func() {
				end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
				defer cancel()
				_ = b.Close(end)
			}()
			p.Logger.Info(name+" runs", "version", version, "instance", p.Instance)
			defer p.Report(ctx, b, counterparts[name]...)()
			return unlessRestart(cmd.Context(), run(ctx, p, b))
		},
	}
	root.Flags().StringVar(&o.Path, "config", "", "configuration file (default $CONFIG_FILE, else config.yaml; looked up in ./config/, then ./)")
	HealthFlag(root, &health)
	return Execute(root, os.Stderr)
}

// Execute runs a command line under signals and turns its error into what a person reads and the exit
// code. SIGINT and SIGTERM end the context: that is an orderly stop, code 0.
func Execute(root *cobra.Command, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	explainUsage(root)
	err := root.ExecuteContext(ctx)
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return ExitDone
	}
	Print(stderr, root.Name(), err)
	return Code(err)
}

// Print writes an error and, where there is one, what to do about it. Named errors stand as people know
// them, without a prefix.
func Print(w io.Writer, program string, err error) {
	var named *fault.Error
	if errors.As(err, &named) {
		fmt.Fprintln(w, err)
	} else {
		fmt.Fprintf(w, "%s: error: %v\n", program, err)
	}
	if hint := fault.Hint(err); hint != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", program, hint)
	}
}

// ErrCheckFailed is in the tree of the error of a check that did not pass.
var ErrCheckFailed = errors.New("check failed")

// ErrMissing is in the tree of the error of a reconciliation that found alerts missing.
var ErrMissing = errors.New("alerts are missing")

// Code is the exit code of an error.
func Code(err error) int {
	var named *fault.Error
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrCheckFailed):
		return ExitCheckFailed
	case errors.Is(err, ErrMissing):
		return ExitMissing
	case errors.As(err, &named) && (named.Type == fault.TypeConfiguration || named.Type == fault.TypeInitVariables):
		return ExitConfiguration
	}
	return ExitFailure
}
