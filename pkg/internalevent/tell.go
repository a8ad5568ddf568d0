package internalevent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

// Tell sends lines to the endpoints themselves, for a program that ends before there is a bus: all endpoints at
// once, each by one connection that is half-closed behind the lines. It tries each once, within ctx, which must
// have a deadline, and leaves nothing running. An endpoint that takes the lines and does not answer the half-close
// counts as told. The error names every endpoint that was not, by the keys of the map; the caller logs it and goes
// on.
func Tell(ctx context.Context, c Collector, lines []telemetry.Copy, endpoints map[string]devo.Endpoint) error {
	var frames []byte
	for _, l := range lines {
		frame, err := c.Line(l)
		if err != nil {
			return err
		}
		frames = append(frames, frame...)
	}
	var mu sync.Mutex
	var failed []error
	var group sync.WaitGroup
	for name, endpoint := range endpoints {
		group.Go(func() {
			if err := deliver(ctx, endpoint, frames); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("output %s: %w", name, err))
			}
		})
	}
	group.Wait()
	return errors.Join(failed...)
}

func deliver(ctx context.Context, endpoint devo.Endpoint, frames []byte) error {
	conn, err := devo.Dial(ctx, endpoint)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what there is to know, the half-close has told
	if _, err := conn.Write(ctx, frames); err != nil {
		return err
	}
	proof, err := conn.HalfClose(ctx)
	if proof == devo.Unanswered {
		return nil
	}
	return err
}
