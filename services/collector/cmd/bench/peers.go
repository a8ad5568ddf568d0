package main

import (
	"cmp"
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
	peerRuns = 3
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
func comparePeers(ctx context.Context, b *bench, bin, receivers string, size int) error {
	r, err := findRsyslog(receivers)
	if err != nil {
		return err
	}
	l, err := newLines(ctx, b.alerts, size)
	defer os.RemoveAll(l.dir) //nolint:errcheck // a temporary folder
	if err != nil {
		return err
	}
	p := &peers{sender: filepath.Join(bin, "sender"), rsyslog: r, lines: l}
	fmt.Printf("peers: %d lines in the same order, %d bytes each on average (alerts of -size %d and their headers), to the simulator's endpoint over mutual TLS on this machine, one connection at a time; %d runs in turns, the one in the middle (slowest to fastest); times begin with the start of the program\n",
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
		slices.SortFunc(c.runs, func(x, y delivery) int { return cmp.Compare(x.arrival, y.arrival) })
		fmt.Println(p.describe(c))
	}
	fmt.Println(p.compare(contenders[0], contenders[1:]))
	return nil
}

// middle is the run with the middle rate.
func (c *contender) middle() delivery { return c.runs[len(c.runs)/2] }

func (p *peers) rate(d time.Duration) float64 { return float64(p.lines.count) / d.Seconds() }

// describe is the line of one contender.
func (p *peers) describe(c *contender) string {
	m := c.middle()
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %.0f lines/s up to the last arrival (%.0f to %.0f; %.0f from the first arrival on)", c.name,
		p.rate(m.arrival), p.rate(c.runs[len(c.runs)-1].arrival), p.rate(c.runs[0].arrival), p.rate(m.flow))
	if m.confirmed > 0 {
		fmt.Fprintf(&text, ", confirmed after %.2f s: %.0f confirmed lines/s (goal %d), %d possibly resent", m.confirmed.Seconds(), p.rate(m.confirmed), peersGoal, m.resent)
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
	identical := 0
	for _, d := range c.runs {
		arrived, duplicates = arrived+d.arrived, duplicates+d.duplicates
		if d.identical {
			identical++
		}
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
