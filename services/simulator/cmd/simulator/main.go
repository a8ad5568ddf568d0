// Command simulator stands in for Microsoft's login endpoint, Azure Resource
// Graph and a Devo endpoint. It writes a configuration for the collector that
// points at itself, and runs until SIGINT or SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"defenderiot/services/simulator"
)

// Set by the build.
var version, commit = "dev", "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	o := simulator.Options{Logger: log, Quota: simulator.AzureQuota()}
	flags := flag.NewFlagSet("simulator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.AzureListen, "azure-listen", "127.0.0.1:8443", "`address` of login and Resource Graph (TLS)")
	flags.StringVar(&o.DevoListen, "devo-listen", "127.0.0.1:6514", "`address` of the Devo endpoint (mutual TLS)")
	flags.StringVar(&o.ControlListen, "control-listen", "127.0.0.1:8081", "`address` of the control interface, \"\" for none")
	flags.StringVar(&o.Host, "host", "", "`name` by which clients reach the simulator, for certificates and configuration")
	flags.Float64Var(&o.Rate, "rate", 5, "alerts a second")
	flags.Uint64Var(&o.Generator.Seed, "seed", 1, "seed of the alerts")
	flags.IntVar(&o.Backfill, "backfill", 0, "alerts of the last hour that are there at start")
	flags.IntVar(&o.Quota.Limit, "quota", o.Quota.Limit, "queries in 5 s, 0 for any number")
	dir := flags.String("dir", "", "`folder` to write config.yaml and certs/ to")
	flags.BoolVar(&o.Absolute, "absolute", false, "name certificates in config.yaml by their full paths, and remove it at the end: for a collector that works in another folder")
	flags.StringVar(&o.BusUser, "bus-user", "", "the collector's `user` at a nats-server, for config.yaml")
	flags.StringVar(&o.BusPassword, "bus-password", "", "that user's `password`")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 255
	}
	if *show {
		fmt.Fprintf(stdout, "simulator %s (commit %s, %s)\n", version, commit, runtime.Version())
		return 0
	}
	if err := simulator.Run(ctx, o, *dir); err != nil {
		log.Error("simulator failed", "error", err)
		return 1
	}
	return 0
}
