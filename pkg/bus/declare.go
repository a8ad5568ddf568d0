package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
)

// Server error codes of a cluster that is not ready: it has just been started, or a node of it.
const (
	codeNoPeers  jetstream.ErrorCode = 10005
	codeNoLeader jetstream.ErrorCode = 10008
)

// placementWait is how long a cluster may have no place for a stream. Nodes find each other and elect within seconds.
const placementWait = 30 * time.Second

// declare creates or updates a stream. A cluster that has too few nodes up is asked again for 30 s, and then its answer
// is the error.
func (b *Bus) declare(ctx context.Context, c jetstream.StreamConfig) (jetstream.Stream, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 200*time.Millisecond, 2*time.Second
	stream, err := backoff.Retry(ctx, func() (jetstream.Stream, error) {
		stream, err := b.js.CreateOrUpdateStream(ctx, c)
		if err != nil && !unplaced(err) {
			err = backoff.Permanent(err)
		}
		return stream, err
	}, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(placementWait))
	if err != nil {
		return nil, fmt.Errorf("provision stream %s: %w", c.Name, err)
	}
	return stream, nil
}

func unplaced(err error) bool {
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return false
	}
	code := api.APIError().ErrorCode
	return code == codeNoPeers || code == codeNoLeader
}
