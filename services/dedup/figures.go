package dedup

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// figures are what the keeper saw in its last round, for /metrics. Figures are observed instead of recorded, so that those
// of an output that was removed end with it. The zero value has none. They are safe for concurrent use.
type figures struct {
	mu      sync.Mutex
	volumes map[string]bus.Volume
	outputs map[string]time.Duration // how long the oldest unconfirmed alert has waited
	last    time.Time                // the end of the last round without an error
	missed  map[string]uint64        // messages that streams have lost
	gone    uint64                   // alerts among them that Azure no longer has
}

// lost takes what the bus has lost lately.
func (f *figures) lost(messages map[string]uint64, gone uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missed, f.gone = maps.Clone(messages), gone
}

// put takes a round's figures. What could not be read keeps its last value; when that was, last says.
func (f *figures) put(volumes map[string]bus.Volume, outputs map[string]time.Duration, complete bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.volumes == nil {
		f.volumes = map[string]bus.Volume{}
	}
	for name, v := range volumes {
		f.volumes[name] = v
	}
	if outputs != nil {
		f.outputs = outputs
	}
	if complete {
		f.last = time.Now()
	}
}

// observe makes the instruments.
func (f *figures) observe(m metric.Meter) error {
	var errs []error
	gauge := func(name, what, unit string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithDescription(what), metric.WithUnit(unit))
		errs = append(errs, err)
		return g
	}
	fill := gauge("collector_stream_fill_ratio", "Share of a stream's size limit that is in use.", "1")
	size := gauge("collector_stream_size_bytes", "Bytes in a stream or bucket.", "By")
	messages := gauge("collector_stream_messages", "Messages in a stream or bucket.", "{message}")
	lost := gauge("collector_stream_lost_messages", "Messages of a stream or bucket that were lost, until a day after everything is read again.", "{message}")
	gone := gauge("collector_lost_alerts", "Alerts that the bus has lost and Azure no longer has, for a day.", "{alert}")
	dead := gauge("collector_dead_letters", "Dead letters that wait for a decision.", "{alert}")
	oldest := gauge("collector_output_oldest_unconfirmed_seconds", "How long the oldest alert in UNIQUE has waited that the output has not confirmed; 0 for none.", "s")
	round := gauge("collector_keeper_last_round_timestamp_seconds", "When the keeper last looked at everything without an error, seconds since the epoch.", "s")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for name, v := range f.volumes {
			label := metric.WithAttributes(attribute.String("stream", strings.TrimPrefix(name, proto.BucketStream(""))))
			o.ObserveFloat64(size, float64(v.Bytes), label)
			o.ObserveFloat64(messages, float64(v.Messages), label)
			o.ObserveFloat64(lost, float64(f.missed[name]), label)
			if v.Limit > 0 {
				o.ObserveFloat64(fill, v.Fill(), label)
			}
			if name == proto.StreamDead {
				o.ObserveFloat64(dead, float64(v.Messages))
			}
		}
		for name, age := range f.outputs {
			o.ObserveFloat64(oldest, age.Seconds(), metric.WithAttributes(attribute.String("output", name)))
		}
		if !f.last.IsZero() {
			o.ObserveFloat64(gone, float64(f.gone))
			o.ObserveFloat64(round, float64(f.last.UnixMilli())/1000)
		}
		return nil
	}, fill, size, messages, lost, gone, dead, oldest, round)
	return err
}

// waiting is how long the oldest unconfirmed alert of each output has been in UNIQUE, whose last sequence is given.
func (k *Keeper) waiting(ctx context.Context, last uint64) (map[string]time.Duration, error) {
	stream, err := k.bus.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return nil, err
	}
	waited := map[string]time.Duration{}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		output, ours := proto.OutputOfConsumer(name)
		if !ours {
			continue
		}
		view, err := ledger.Read(ctx, k.bus, output)
		if err != nil {
			return nil, err
		}
		waited[output] = 0
		first := view.FirstUnconfirmed()
		if first > last {
			continue
		}
		at, found, err := k.bus.StoredAt(ctx, proto.StreamUnique, first)
		if err != nil {
			return nil, err
		}
		if found {
			waited[output] = max(0, time.Since(at))
		}
	}
	return waited, names.Err()
}
