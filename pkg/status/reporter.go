// Package status carries what only a running process knows to whoever looks: what fails there, what waits to be ready,
// and the figures of its metrics that an operator wants beside streams and ledgers. Each process writes one small
// record into a bucket that forgets it; no service reads any.
//
// The record is a picture of moments ago. What must be true over restarts is never taken from it.
package status

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

const (
	// Period is between two writes of a record.
	Period = 5 * time.Second
	// window is what rates are a mean over.
	window = time.Minute
	// removeTime bounds the last write of a process that stops.
	removeTime = 500 * time.Millisecond
)

// Reporter writes the record of one process.
type Reporter struct {
	Bus       *bus.Bus
	Telemetry *telemetry.Telemetry
	// Program and Instance name the process; the bus's user must be the program's.
	Program, Instance string

	started time.Time
	past    []sample // of the last window, oldest first
}

// sample is the counters at a moment.
type sample struct {
	at     time.Time
	values map[string]float64
}

// Run writes the record at once and then every [Period], until ctx ends; then it removes it, within half a second. A
// write that fails is logged once, at warning: nothing depends on it.
func (r *Reporter) Run(ctx context.Context) {
	r.started = time.Now()
	trouble := telemetry.NewIncident(r.Telemetry.Logger, "storing this program's status record", telemetry.IncidentLevel(slog.LevelWarn))
	ticker := time.NewTicker(Period)
	defer ticker.Stop()
	for {
		if r.Bus.Connected() == nil { // else the connection itself says so
			switch err := r.write(ctx, time.Now()); {
			case ctx.Err() != nil:
			case err != nil:
				trouble.Report(err)
			default:
				trouble.Resolve()
			}
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
			defer cancel()
			if r.Bus.Connected() == nil { // one that is left is shown as not heard of, and forgotten
				_ = r.Bus.RemoveStatus(end, r.Program, r.Instance)
			}
			return
		case <-ticker.C:
		}
	}
}

func (r *Reporter) write(ctx context.Context, now time.Time) error {
	record, err := r.record(now)
	if err != nil {
		return err
	}
	data, err := record.Encode()
	if err != nil {
		return err
	}
	return r.Bus.WriteStatus(ctx, r.Program, r.Instance, data)
}

func (r *Reporter) record(now time.Time) (*proto.ProcessStatus, error) {
	build, _, _ := telemetry.BuildVersion()
	record := &proto.ProcessStatus{
		Version: proto.StatusVersion, Program: r.Program, Instance: r.Instance, Build: build, Started: r.started.UTC(),
		NotReady: r.Telemetry.NotReady(),
	}
	for _, f := range r.Telemetry.Failures.List() {
		record.Failures = append(record.Failures, proto.StatusFailure{
			What: f.What, Type: f.Type, Code: f.Code, Text: f.Text, Hint: f.Hint, Warning: f.Warning,
			Since: f.Since.UTC(), Last: f.Last.UTC(), Count: f.Count,
		})
	}
	families, err := r.Telemetry.Gatherer().Gather()
	if err != nil && len(families) == 0 {
		return nil, err
	}
	r.figures(record, families, now)
	return record, nil
}

// figures puts the shown figures into the record, counters with their rate.
func (r *Reporter) figures(record *proto.ProcessStatus, families []*dto.MetricFamily, now time.Time) {
	counters := map[string]float64{}
	var before sample
	if len(r.past) > 0 {
		before = r.past[0]
	} else {
		before = sample{at: r.started} // counters begin at 0
	}
	add := func(name string, labels map[string]string, value float64, counts bool) {
		f := proto.StatusFigure{Name: name, Labels: labels, Value: value}
		if counts {
			key := name + keyOf(labels)
			counters[key] = value
			if passed := now.Sub(before.at).Seconds(); passed > 0 {
				f.PerSecond = max(0, value-before.values[key]) / passed
			}
		}
		record.Figures = append(record.Figures, f)
	}
	for _, family := range families {
		name := family.GetName()
		if !shown[name] {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				add(name, labels, m.GetCounter().GetValue(), true)
			case m.GetGauge() != nil:
				add(name, labels, m.GetGauge().GetValue(), false)
			case m.GetHistogram() != nil:
				add(name+"_sum", labels, m.GetHistogram().GetSampleSum(), true)
				add(name+"_count", labels, float64(m.GetHistogram().GetSampleCount()), true)
			}
		}
	}
	r.past = append(r.past, sample{now, counters})
	for len(r.past) > 1 && now.Sub(r.past[0].at) >= window {
		r.past = r.past[1:]
	}
}

// keyOf tells the series of one metric apart.
func keyOf(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString("\x00" + name + "\x00" + labels[name])
	}
	return b.String()
}
