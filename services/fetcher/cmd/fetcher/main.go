// The fetcher reads alerts from Azure Resource Graph into RAW.
package main

import (
	"context"
	"os"
	"sync"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/process"
	"defenderiot/services/fetcher"
)

func main() {
	os.Exit(process.Main("fetcher", "reads Defender for IoT alerts from Azure Resource Graph onto the bus", run))
}

func run(ctx context.Context, p *process.Process, b *bus.Bus) error {
	if err := fetcher.CheckRecords(ctx, b, p.Config); err != nil {
		return err
	}
	fetchers, release, err := fetcher.Configured(p.Config, fetcher.Runtime{
		Bus: b, Logger: p.Logger, Meter: p.Telemetry.Meter, Tracer: p.Telemetry.Tracer, Instance: p.Instance,
	})
	if err != nil {
		return err
	}
	defer release()
	var group sync.WaitGroup
	for _, f := range fetchers {
		p.Telemetry.Ready("fetcher", f.Ready)
		group.Go(func() { _ = f.Run(ctx) }) // ends with ctx only
	}
	group.Wait()
	return nil
}
