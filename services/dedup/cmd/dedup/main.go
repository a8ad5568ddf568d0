// Dedup passes first sightings from RAW on to UNIQUE.
package main

import (
	"context"
	"os"
	"sync"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/process"
	"defenderiot/pkg/trial"
	"defenderiot/services/dedup"
)

func main() {
	trial.Enter(map[string]trial.Work{dedup.TrialWork: dedup.Try})
	os.Exit(process.Main("dedup", "passes the first sighting of every alert on, once", run))
}

func run(ctx context.Context, p *process.Process, b *bus.Bus) error {
	d, err := dedup.New(dedup.Options{Bus: b, Logger: p.Logger, Meter: p.Telemetry.Meter, Tracer: p.Telemetry.Tracer})
	if err != nil {
		return err
	}
	keeper, err := dedup.NewKeeper(b, process.Topology(p.Config), p.Logger, p.Telemetry.Meter)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	group.Go(func() { _ = d.Run(ctx) }) // both end with ctx only
	group.Go(func() { _ = keeper.Run(ctx) })
	group.Wait()
	return nil
}
