package fetcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/config"
	"defenderiot/proto"
)

// recordsTimeout bounds reading the records of all inputs at start.
const recordsTimeout = 30 * time.Second

// CheckRecords reads the record of each enabled input of c, for a program that is about to start. A record
// that this program must not touch, damaged or of a newer version, is PrePullError 1 with its hint, and
// the program ends: going on would either begin from scratch or do nothing. No record is no error. Trouble
// with the bus is none either: the fetchers wait for it.
func CheckRecords(ctx context.Context, buckets Buckets, c *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, recordsTimeout)
	defer cancel()
	kv, err := buckets.KeyValue(ctx, proto.BucketCheckpoints)
	if err != nil {
		return nil //nolint:nilerr // the fetchers wait for the bucket
	}
	var errs []error
	for _, source := range Sources(c) {
		_, _, err := ReadRecord(ctx, kv, source)
		if errors.Is(err, proto.ErrMalformed) || errors.Is(err, proto.ErrNewerMajor) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Sources are the sources of c's enabled inputs, in the order of their names.
func Sources(c *config.Config) []proto.Source {
	var sources []proto.Source
	for _, name := range Enabled(c) {
		sources = append(sources, proto.Source{Input: name, InputID: c.Inputs[name].ID, Service: ServiceName})
	}
	return sources
}

// ReadRecord reads a source's record. Without one, the record is nil and the error wraps
// jetstream.ErrKeyNotFound. A record that cannot be read is PrePullError 1 and wraps proto.ErrMalformed or
// proto.ErrNewerMajor; the entry is returned beside it.
func ReadRecord(ctx context.Context, kv jetstream.KeyValue, source proto.Source) (*proto.Checkpoint, jetstream.KeyValueEntry, error) {
	key := proto.RecordKey(source)
	entry, err := kv.Get(ctx, key)
	if err != nil {
		return nil, nil, fmt.Errorf("record of %s: %w", source, err)
	}
	c, err := proto.DecodeCheckpoint(entry.Value())
	if err != nil {
		return nil, entry, unreadable(key, err)
	}
	return c, entry, nil
}
