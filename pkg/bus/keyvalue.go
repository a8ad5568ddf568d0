package bus

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// keyValue is a bucket whose calls fail at once when the server refuses them. What it does not name is the
// client's own.
type keyValue struct {
	jetstream.KeyValue
	bus    *Bus
	bucket string
}

func (k *keyValue) guard(ctx context.Context) (context.Context, func(error) error) {
	stream := proto.BucketStream(k.bucket)
	return k.bus.guard(ctx, append(api("DIRECT.GET."+stream+".>", "STREAM.MSG.GET."+stream, "CONSUMER.CREATE."+stream+".>"),
		proto.BucketSubject(k.bucket, ">"))...)
}

func (k *keyValue) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	ctx, explain := k.guard(ctx)
	entry, err := k.KeyValue.Get(ctx, key)
	return entry, explain(err)
}

func (k *keyValue) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	ctx, explain := k.guard(ctx)
	revision, err := k.KeyValue.Create(ctx, key, value, opts...)
	return revision, explain(err)
}

func (k *keyValue) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	ctx, explain := k.guard(ctx)
	revision, err := k.KeyValue.Put(ctx, key, value)
	return revision, explain(err)
}

func (k *keyValue) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	ctx, explain := k.guard(ctx)
	next, err := k.KeyValue.Update(ctx, key, value, revision)
	return next, explain(err)
}

func (k *keyValue) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	ctx, explain := k.guard(ctx)
	return explain(k.KeyValue.Delete(ctx, key, opts...))
}

func (k *keyValue) History(ctx context.Context, key string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	ctx, explain := k.guard(ctx)
	entries, err := k.KeyValue.History(ctx, key, opts...)
	return entries, explain(err)
}
