package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

// lines are the same alerts twice: as a file of frames, and waiting in the UNIQUE of a state folder, both in
// the same order.
type lines struct {
	dir   string
	count int
	bytes int64 // of all frames with their line feeds
	sum   digest
}

// digest tells sets of alerts' frames apart, in whatever order they come. It is safe for concurrent use.
type digest struct{ sum, count atomic.Int64 }

var (
	seed = maphash.MakeSeed()
	// own is in the frames of the sender's own log lines, which the other forwarders have no counterpart of.
	own = []byte(" devo.collectors.out.")
)

func (d *digest) add(frame []byte) {
	if bytes.Contains(frame[:min(len(frame), 200)], own) {
		return
	}
	d.count.Add(1)
	d.sum.Add(int64(maphash.Bytes(seed, frame)))
}

func (d *digest) equal(o *digest) bool {
	return d.count.Load() == o.count.Load() && d.sum.Load() == o.sum.Load()
}

func (l *lines) file() string  { return filepath.Join(l.dir, "lines") }
func (l *lines) state() string { return filepath.Join(l.dir, "bus") }

// newLines makes count alerts of roughly size bytes. Remove the folder l.dir after use, also after an error.
func newLines(ctx context.Context, count, size int) (l *lines, err error) {
	l = &lines{count: count}
	if l.dir, err = os.MkdirTemp("", "bench-lines-"); err != nil {
		return l, err
	}
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return l, err
	}
	defer s.close()
	err = s.provisioned(ctx, func(conn *bus.Bus) error { return l.fill(ctx, conn, size) })
	if err != nil {
		return l, err
	}
	return l, os.Rename(process.BusDir(s.config), l.state())
}

// fill publishes the alerts as dedup would and writes their frames to the file.
func (l *lines) fill(ctx context.Context, conn *bus.Bus, size int) (err error) {
	f, err := os.Create(l.file())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	generator := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 1, Size: size})
	pull := time.Now()
	var frame []byte
	var batch []bus.Message
	for i := range l.count {
		e := envelope(generator.Next(), pull)
		h := devo.Header{Time: e.PullStart, Host: e.Host, Tag: e.Tag, PullingID: strconv.FormatInt(e.PullingID, 10)}
		if frame, err = devo.AppendFrame(frame[:0], h, e.Row); err != nil {
			return err
		}
		if _, err := w.Write(frame); err != nil {
			return err
		}
		l.bytes += int64(len(frame))
		l.sum.add(frame[:len(frame)-1])
		data, err := e.Encode()
		if err != nil {
			return err
		}
		batch = append(batch, bus.Message{
			Subject: proto.UniqueSubject(e.Source, e.Generation, e.Hash), Data: data,
			MsgID: proto.UniqueMsgID(e.Generation, e.Hash), ExpectEmpty: true,
		})
		if len(batch) == 1000 || i == l.count-1 {
			if err := conn.PublishBatch(ctx, proto.StreamUnique, batch); err != nil {
				return fmt.Errorf("publish to UNIQUE: %w", err)
			}
			batch = batch[:0]
		}
	}
	return w.Flush()
}
