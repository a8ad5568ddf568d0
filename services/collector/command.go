// Package collector assembles the services into one process on an embedded server, and holds the
// operator's commands.
//
// How the commands speak: results go to stdout, everything else to stderr; an error is one line that says
// what, and a hint line that says what to do; lower case, no full stop; --json where a program may read it.
package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	"defenderiot/pkg/telemetry"
	"defenderiot/services/fetcher"
)

// timeHint is what to do about a time that cannot be read.
const timeHint = "write date and time; without an offset it is UTC. Day and month are never guessed"

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	files          config.Options
	health         string // of the bare command

	// Flags of the known collector, accepted on the bare command.
	validate, prodMode, noSaveState bool
}

// Command is the whole command line. It returns errors instead of ending the process; process.Execute
// turns them into output and an exit code.
func Command(stdout, stderr io.Writer) *cobra.Command {
	a := &app{stdout: stdout, stderr: stderr}
	version, commit, goVersion := telemetry.BuildVersion()
	root := &cobra.Command{
		Use:   "collector",
		Short: "brings every Microsoft Defender for IoT alert to Devo, once, soon, and provably",
		Example: "  collector demo                      see it work, without any configuration\n" +
			"  collector check --config my.yaml    is the configuration right, do Azure and Devo answer?\n" +
			"  collector run --config my.yaml      everything in one process\n" +
			"  collector status                    where everything stands",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		Version: fmt.Sprintf("%s (commit %s, %s)", version, commit, goVersion),
		RunE:    a.bare,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentFlags().StringVar(&a.files.Path, "config", "", "configuration file (default $CONFIG_FILE, else config.yaml; looked up in ./config/, then ./)")
	known := root.Flags()
	known.BoolVar(&a.validate, "validate", false, "the same as `collector check`")
	known.BoolVar(&a.prodMode, "prod-mode", false, "run; there is one mode only")
	known.BoolVar(&a.noSaveState, "no-save-state", false, "run with the state in a temporary folder that is removed at the end")
	root.PersistentFlags().StringVar(&a.files.Job, "job_config_loc", "", "job file of a Collector Server (default /etc/devo/job/job_config.json, where it and the collector file exist)")
	root.PersistentFlags().StringVar(&a.files.Collector, "collector_config_loc", "", "collector file of a Collector Server (default /etc/devo/collector/collector_config.json)")
	process.HealthFlag(root, &a.health)
	root.AddCommand(a.runCommand(), a.demoCommand(), a.checkCommand(), a.statusCommand(), a.checkpointCommand(), a.replayCommand(), a.reconcileCommand(), a.deadCommand(), a.provisionCommand(), a.natsConfigCommand(), a.schemaCommand())
	return root
}

// bare is the collector without a command: with the known collector's flags it does what that does,
// else it shows the help.
func (a *app) bare(cmd *cobra.Command, _ []string) error {
	switch {
	case a.health != "":
		return process.Health(cmd.Context(), a.files, a.health)
	case a.validate:
		return a.check(cmd.Context(), false)
	case a.prodMode || a.noSaveState || cmd.Flags().Changed("config") || a.files.Job != "" || a.files.Collector != "":
		return a.run(cmd.Context())
	}
	return cmd.Help()
}

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "everything in one process, on an embedded server unless bus.url is set", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&a.noSaveState, "no-save-state", false, "keep the state in a temporary folder that is removed at the end")
	return cmd
}

func (a *app) schemaCommand() *cobra.Command {
	var sample bool
	cmd := &cobra.Command{
		Use: "schema", Short: "prints the JSON Schema of the configuration file, or a sample of the file", Args: cobra.NoArgs,
		Example: "  collector schema                                  for an editor\n" +
			"  collector schema --sample >config/config.yaml     a file to begin with",
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema()
			if sample {
				text, err = config.Sample()
			}
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&sample, "sample", false, "print a commented configuration file instead")
	return cmd
}

// load reads the configuration. Beside an error there is one only where [config.Load] returns it.
func (a *app) load() (*config.Config, []config.Warning, error) {
	if err := process.AwaitConfiguration(a.files, a.stderr); err != nil {
		return nil, nil, err
	}
	c, warnings, err := config.Load(a.files)
	if err != nil {
		return c, nil, err
	}
	// What cannot work is said before anything is started.
	return c, warnings, fetcher.Validate(c)
}

// connect opens the bus of a command; what the connection has to say from level on goes to stderr.
func (a *app) connect(c *config.Config, level slog.Level) (*bus.Bus, *slog.Logger, error) {
	logger, err := telemetry.NewLogger(a.stderr, c.Telemetry.LogFormat, level)
	if err != nil {
		return nil, nil, err
	}
	b, err := process.Connect(c, process.NewInstance(), logger)
	return b, logger, err
}

func (a *app) run(ctx context.Context) error {
	c, warnings, err := a.load()
	if err != nil {
		process.Refused(ctx, c, err, a.stderr)
		return err
	}
	p, err := process.OpenWith(ctx, "collector", c, warnings, a.stderr)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Found(a.files)
	dir, known := process.BusDir(c), c.StateDir()
	if a.noSaveState {
		known = ""
		if dir, err = os.MkdirTemp("", "collector-state-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		p.Logger.Warn("the state is in a temporary folder and is removed at the end", "folder", dir)
	}
	limitMemory(p.Logger)
	pipeline := &Pipeline{Process: p, BusDir: dir, KnownState: known, Console: a.stdout}
	err = pipeline.Run(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
