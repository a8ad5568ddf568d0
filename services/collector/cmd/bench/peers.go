package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// peerRuns is odd, so that there is a run in the middle.
	peerRuns = 5
	// smallest is the size in bytes below which the generator's alerts stay as large.
	smallest = 1500
	// peersGoal is confirmed lines a second, on one connection at a time.
	peersGoal = 60_000
)

// contender is one of those that are compared.
type contender struct {
	name string
	run  func(context.Context) (delivery, error)
	runs []delivery
}

// comparePeers takes the runs in turns, so that what disturbs the machine disturbs all, and prints the medians.
func comparePeers(ctx context.Context, bin, receivers string, alerts, size int) error {
	if alerts < 1 || size < smallest {
		return fmt.Errorf("%d alerts of %d bytes: want at least 1 of at least %d, which is the smallest that the generator makes", alerts, size, smallest)
	}
	r, err := findRsyslog(receivers)
	if err != nil {
		return err
	}
	l, err := newLines(ctx, alerts, size)
	defer os.RemoveAll(l.dir) //nolint:errcheck // a temporary folder
	if err != nil {
		return err
	}
	p := &peers{sender: filepath.Join(bin, "sender"), rsyslog: r, lines: l}
	fmt.Printf("peers: %d lines in the same order, %d bytes each on average (alerts of -size %d and their headers), to the simulator's endpoint over mutual TLS on this machine, one connection at a time; %d runs in turns, medians (slowest to fastest); times begin with the start of the program\n",
		l.count, l.bytes/int64(l.count), size, peerRuns)
	fmt.Printf("peers: sender: lines wait in UNIQUE of a server in a process of its own, every write synced; default confirmation and rotation\n")
	fmt.Printf("peers: rsyslog %s: lines wait in a file; %s\n", r.version, rsyslogSettings)
	contenders := []*contender{
		{name: "sender", run: p.forwardSender},
		{name: "rsyslog gtls", run: func(ctx context.Context) (delivery, error) { return p.forwardRsyslog(ctx, "gtls") }},
		{name: "rsyslog ossl", run: func(ctx context.Context) (delivery, error) { return p.forwardRsyslog(ctx, "ossl") }},
	}
	for range peerRuns {
		for _, c := range contenders {
			d, err := c.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.runs = append(c.runs, d)
		}
	}
	for _, c := range contenders {
		fmt.Println(p.describe(c))
	}
	fmt.Println(p.compare(contenders[0], contenders[1:]))
	return nil
}

// middle has the median of each figure. The figures of one run belong together, but the processor time of
// equal runs differs by half on a shared machine, and not as their rates do.
func (c *contender) middle() delivery {
	of := func(figure func(delivery) time.Duration) time.Duration { return median(figures(c.runs, figure)) }
	return delivery{
		arrival:   of(func(d delivery) time.Duration { return d.arrival }),
		flow:      of(func(d delivery) time.Duration { return d.flow }),
		confirmed: of(func(d delivery) time.Duration { return d.confirmed }),
		cpu:       of(func(d delivery) time.Duration { return d.cpu }),
		busCPU:    of(func(d delivery) time.Duration { return d.busCPU }),
		sinkCPU:   of(func(d delivery) time.Duration { return d.sinkCPU }),
		peak:      median(figures(c.runs, func(d delivery) float64 { return d.peak })),
		busPeak:   median(figures(c.runs, func(d delivery) float64 { return d.busPeak })),
	}
}

func figures[T any](runs []delivery, figure func(delivery) T) []T {
	var out []T
	for _, d := range runs {
		out = append(out, figure(d))
	}
	return out
}

// span gives the slowest and the fastest of some times, as rates.
func (p *peers) span(times []time.Duration) string {
	return fmt.Sprintf("%.0f to %.0f", p.rate(slices.Max(times)), p.rate(slices.Min(times)))
}

func (p *peers) rate(d time.Duration) float64 { return float64(p.lines.count) / d.Seconds() }

// describe is the line of one contender.
func (p *peers) describe(c *contender) string {
	m := c.middle()
	var text strings.Builder
	arrivals := figures(c.runs, func(d delivery) time.Duration { return d.arrival })
	fmt.Fprintf(&text, "%s: %.0f lines/s up to the last arrival (%s; %.0f from the first arrival on)", c.name, p.rate(m.arrival), p.span(arrivals), p.rate(m.flow))
	if m.confirmed > 0 {
		confirmed := figures(c.runs, func(d delivery) time.Duration { return d.confirmed })
		fmt.Fprintf(&text, ", all confirmed after %.2f s: %.0f confirmed lines/s (%s; goal %d)", m.confirmed.Seconds(), p.rate(m.confirmed), p.span(confirmed), peersGoal)
	} else {
		text.WriteString(", confirmed: never, it does not ask whether the endpoint has read what was written")
	}
	perThousand := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(p.lines.count) }
	fmt.Fprintf(&text, "; CPU a 1,000 lines: %.4f s its own", perThousand(m.cpu))
	if m.busCPU > 0 {
		fmt.Fprintf(&text, ", %.4f s the bus's", perThousand(m.busCPU))
	}
	fmt.Fprintf(&text, ", %.4f s the endpoint's; peak memory %.0f MiB", perThousand(m.sinkCPU), m.peak)
	if m.busPeak > 0 {
		fmt.Fprintf(&text, ", the bus's %.0f MiB", m.busPeak)
	}
	var arrived, duplicates int64
	var resent uint64
	identical := 0
	for _, d := range c.runs {
		arrived, duplicates, resent = arrived+d.arrived, duplicates+d.duplicates, resent+d.resent
		if d.identical {
			identical++
		}
	}
	if m.confirmed > 0 {
		fmt.Fprintf(&text, "; possibly resent %d", resent)
	}
	fmt.Fprintf(&text, "; all runs: arrived %d, missing %d, duplicates %d, byte for byte what the file holds in %d of %d",
		arrived, int64(len(c.runs)*p.lines.count)-arrived, duplicates, identical, len(c.runs))
	return text.String()
}

// compare sets the first against each of the others.
func (p *peers) compare(of *contender, with []*contender) string {
	m := of.middle()
	var parts []string
	for _, c := range with {
		o := c.middle()
		parts = append(parts, fmt.Sprintf("%.2f of the rate of %s (confirmed, against its last arrival: %.2f) and %.1f times its CPU (with the bus %.1f)",
			o.arrival.Seconds()/m.arrival.Seconds(), c.name, o.arrival.Seconds()/m.confirmed.Seconds(),
			m.cpu.Seconds()/o.cpu.Seconds(), (m.cpu+m.busCPU).Seconds()/o.cpu.Seconds()))
	}
	return fmt.Sprintf("%s: %s", of.name, strings.Join(parts, "; "))
}
