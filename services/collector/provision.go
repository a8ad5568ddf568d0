package collector

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
)

func (a *app) provisionCommand() *cobra.Command {
	var prune bool
	cmd := &cobra.Command{
		Use: "provision", Short: "creates or updates streams, buckets and consumers on the server of bus.url", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.provision(cmd.Context(), prune) },
	}
	cmd.Flags().BoolVar(&prune, "prune", false, "also remove the positions and ledgers of outputs that are no longer configured")
	return cmd
}

func (a *app) provision(ctx context.Context, prune bool) error {
	c, _, err := a.load()
	if err != nil {
		return err
	}
	b, logger, err := a.connect(c, slog.LevelWarn)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	// In a compose file this starts together with the server, so the server may take a moment.
	deadline := time.Now().Add(time.Minute)
	for b.Connected() != nil {
		if time.Now().After(deadline) {
			return fault.WithHint(fmt.Errorf("the bus at %s does not answer", c.Bus.URL), "is the server running, and are bus.url, bus.user and bus.password right?")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	t := process.Topology(c)
	if err := provision(ctx, b, t, prune, logger); err != nil {
		return err
	}
	if c.Bus.Replicas == 1 && !c.Bus.IsEmbedded() {
		process.WarnIfLazy(ctx, b, logger)
	}
	fmt.Fprintf(a.stdout, "provisioned: 4 streams, 5 buckets, %d outputs\n", len(t.Outputs))
	return nil
}
