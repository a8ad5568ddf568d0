package dedup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"defenderiot/proto"
)

// report shows what the leaders' states tell of a loss on a bus with copies, and has nothing brought back: one copy may
// have it, and servers get it from there.
func (l *losses) report(ctx context.Context, lost map[string]uint64) error {
	if len(lost) == 0 {
		return nil
	}
	if err := l.load(ctx); err != nil {
		return err
	}
	next := l.loss
	if next == nil || next.State == proto.LossSettled {
		now := time.Now().UTC()
		next = &proto.Loss{State: proto.LossSettled, Noticed: now, Settled: now, Messages: map[string]uint64{}}
	}
	said := addLost(next, lost)
	if err := l.put(ctx, next); err != nil {
		return err
	}
	l.logger.Error("the bus has lost messages that it had acknowledged, as its leaders' states say: "+said+"; on a bus with copies nothing is released by itself",
		"hint", "look at the servers and their disks, then run `collector reconcile`, with --repair if something is missing; docs/operating.md under MessagesLost")
	return nil
}

// addLost counts what was lost in a loss, and says it.
func addLost(l *proto.Loss, lost map[string]uint64) string {
	var parts []string
	for _, name := range []string{proto.StreamRaw, proto.StreamUnique, hashesStream} {
		if n := lost[name]; n > 0 {
			l.Messages[name] += n
			parts = append(parts, fmt.Sprintf("%d of %s", n, strings.TrimPrefix(name, proto.BucketStream(""))))
		}
	}
	return strings.Join(parts, ", ")
}
