package main

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/process"
	"defenderiot/proto"
)

// floor reads RAW, writes frames and acknowledges, until ctx ends.
func floor(ctx context.Context, dir string) error {
	c, _, err := config.Load(config.Options{Path: filepath.Join(dir, "config.yaml"), Workdir: dir})
	if err != nil {
		return err
	}
	server, err := embedded.Start(embedded.Settings{Dir: process.BusDir(c), Listen: "127.0.0.1:0", Logger: discard})
	if err != nil {
		return err
	}
	defer func() { _ = server.Shutdown(context.WithoutCancel(ctx)) }()
	to := server.Connection()
	b, err := bus.Connect(bus.Settings{InProcess: server.InProcess(), User: to.User, Password: to.Secret(), Name: "floor", Logger: discard})
	if err != nil {
		return err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	conn, err := devo.Dial(ctx, process.Endpoint(c, c.Outputs[output]))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the run is over
	pull, err := b.Pull(ctx, proto.StreamRaw, proto.ConsumerDedup)
	if err != nil {
		return err
	}
	defer pull.Close()
	var buffer []byte
	for {
		msgs, err := pull.Next(ctx, 500, time.Second)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		buffer = buffer[:0]
		for _, m := range msgs {
			e, err := proto.DecodeEnvelope(m.Data())
			if err != nil {
				return err
			}
			h := devo.Header{Time: e.PullStart, Host: e.Host, Tag: e.Tag, PullingID: strconv.FormatInt(e.PullingID, 10)}
			if buffer, err = devo.AppendFrame(buffer, h, e.Row); err != nil {
				return err
			}
		}
		if len(buffer) > 0 {
			if _, err := conn.Write(ctx, buffer); err != nil {
				return err
			}
		}
		for _, m := range msgs {
			if err := m.Ack(); err != nil {
				return err
			}
		}
	}
}
