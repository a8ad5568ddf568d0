// The sender delivers UNIQUE to every output.
package main

import (
	"context"
	"os"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/process"
	"defenderiot/pkg/trial"
	"defenderiot/services/sender"
)

func main() {
	trial.Enter(map[string]trial.Work{sender.TrialWork: sender.Try})
	os.Exit(process.Main("sender", "delivers alerts to Devo and acknowledges what is confirmed", run))
}

func run(ctx context.Context, p *process.Process, b *bus.Bus) error {
	s, err := sender.New(sender.Options{
		Bus: b, Outputs: sender.Configured(p.Config, os.Stdout), Instance: p.Instance,
		Logger: p.Logger, Meter: p.Telemetry.Meter, Tracer: p.Telemetry.Tracer,
		Collector: p.Collector,
	})
	if err != nil {
		return err
	}
	p.Telemetry.Ready("sender", s.Ready)
	return s.Run(ctx)
}
