package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/simulator"
)

const (
	letters = 2000
	// cooled is longer than the server keeps in memory what was written, and than the windows of duplicate ids.
	cooled = 30 * time.Second
)

// claimed are the numbers of live claims that the server's memory is taken at.
var claimed = []int{0, 100_000, 300_000}

// capacity measures what a dead letter takes on the bus' disk, and what a live claim takes there and in the server's
// memory: the difference between servers that hold more and fewer, after the runtime has given back what is free.
func (b *bench) capacity(ctx context.Context) error {
	s, err := newSite(simulator.Options{}, slow)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.provisioned(ctx, func(*bus.Bus) error { return nil }); err != nil {
		return err
	}
	server, err := startBus(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = server.stop() }()
	conn, err := process.Connect(s.config, "bench", discard)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := b.claims(ctx, conn, server); err != nil {
		return err
	}
	return deadLetters(ctx, conn)
}

// claims stores claims as dedup does and takes the server's memory.
func (b *bench) claims(ctx context.Context, conn *bus.Bus, server *busProcess) error {
	stream := proto.BucketStream(proto.BucketHashes)
	var memory []float64
	stored := 0
	for _, want := range claimed {
		for stored < want {
			var batch []bus.Message
			for range min(1000, want-stored) {
				stored++
				subject := proto.BucketSubject(proto.BucketHashes, proto.HashKey(source, 1, proto.HashIdentity("/alerts/"+strconv.Itoa(stored))))
				batch = append(batch, bus.Message{Subject: subject, Data: proto.Claim{RawSequence: uint64(stored)}.Encode(), ExpectEmpty: true})
			}
			if err := conn.PublishBatch(ctx, stream, batch); err != nil {
				return err
			}
		}
		bytes, err := server.settledMemory(ctx)
		if err != nil {
			return err
		}
		memory = append(memory, bytes)
	}
	v, err := conn.Volume(ctx, stream)
	if err != nil {
		return err
	}
	fmt.Printf("capacity: %d claims take %.0f bytes each on disk; the server's resident memory with", v.Messages, float64(v.Bytes)/float64(v.Messages))
	for i, n := range claimed {
		fmt.Printf(" %d: %.1f MiB,", n, memory[i]/(1<<20))
	}
	last := len(claimed) - 1
	fmt.Printf(" so %.0f bytes a claim from %d to %d, %.0f from %d to %d\n",
		(memory[1]-memory[0])/float64(claimed[1]-claimed[0]), claimed[0], claimed[1],
		(memory[last]-memory[last-1])/float64(claimed[last]-claimed[last-1]), claimed[last-1], claimed[last])
	return nil
}

// deadLetters stores letters of each stage as the services do: dedup's and the sender's hold the packed message, the
// fetcher's the row.
func deadLetters(ctx context.Context, conn *bus.Bus) error {
	generator := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 1, Size: 1500})
	now := time.Now()
	var before bus.Volume
	for _, stage := range []string{proto.StageFetcher, proto.StageDedup, proto.StageSender} {
		row := 0
		for i := range letters {
			alert := generator.Next()
			row += len(alert.JSON)
			d := proto.DeadLetter{Stage: stage, AlertID: proto.Identity(alert.ID()), Reason: "making its frame: the row is no JSON object", Attempts: 1, First: now, Last: now, Payload: alert.JSON}
			if stage != proto.StageFetcher {
				e := envelope(alert, now)
				data, err := e.Encode()
				if err != nil {
					return err
				}
				d.Payload, d.Stream, d.Sequence = data, proto.StreamRaw, uint64(i+1)
			}
			if stage == proto.StageSender {
				d.Stream, d.Output = proto.StreamUnique, output
			}
			if err := conn.DeadLetter(ctx, d); err != nil {
				return err
			}
		}
		after, err := conn.Volume(ctx, proto.StreamDead)
		if err != nil {
			return err
		}
		fmt.Printf("capacity: %d dead letters of %s take %.0f bytes each in DEAD, of rows of %.0f bytes\n",
			letters, stage, float64(after.Bytes-before.Bytes)/float64(after.Messages-before.Messages), float64(row)/letters)
		before = after
	}
	return nil
}

// settledMemory is the server's resident memory once its caches have aged and its runtime has given back what is free.
func (p *busProcess) settledMemory(ctx context.Context) (float64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(cooled):
	}
	var least float64
	for range 5 {
		if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return 0, err
		}
		time.Sleep(time.Second)
		now, err := resident(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		if least == 0 || now < least {
			least = now
		}
	}
	return least, nil
}

// resident is what of a process's own memory, files mapped into it aside, is in memory now.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("no RssAnon")
}
