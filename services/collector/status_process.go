package collector

import (
	"cmp"
	"context"
	"slices"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/status"
	"defenderiot/services/fetcher"
)

// InputStatus is what the fetchers tell of an input. What is nil is not known, because no active fetcher is heard of.
type InputStatus struct {
	// Active is the instance that fetches, "" for none; Standby counts those that would take over.
	Active  string `json:"active_fetcher"`
	Standby int    `json:"standby_fetchers"`
	// ActiveSince is when it became active; nil when a fetcher of an older version does not tell.
	ActiveSince *time.Time `json:"active_since"`
	// LastPage is when Resource Graph last answered with a page.
	LastPage      *time.Time `json:"last_page"`
	RowsPerSecond float64    `json:"rows_per_second"` // received, known ones among them
	NewPerSecond  float64    `json:"new_per_second"`  // acknowledged by RAW
	// QuotaRemaining are the requests that Azure leaves to the principal, by its last answer.
	QuotaRemaining     *float64 `json:"quota_remaining"`
	ThrottledPerMinute float64  `json:"throttled_per_minute"`
	Unreadable         int      `json:"unreadable_subscriptions"`
}

// ProcessStatus is one process.
type ProcessStatus struct {
	Program  string    `json:"program"`
	Instance string    `json:"instance"`
	Build    string    `json:"build"`
	Started  time.Time `json:"started"`
	// Silent is how long ago its record was written; Heard says that this is as it should be.
	Silent float64 `json:"heard_of_seconds_ago"`
	Heard  bool    `json:"heard"`
	Memory float64 `json:"memory_bytes"`
	Limit  float64 `json:"memory_limit_bytes"`
	// NotReady are the parts that cannot do their work, with the reason.
	NotReady map[string]string `json:"not_ready,omitempty"`
}

// ErrorStatus is something that fails now in one process.
type ErrorStatus struct {
	Program  string `json:"program"`
	Instance string `json:"instance"`
	What     string `json:"what"`
	// Type and Code are those of docs/errors.md; Type is empty for an error without a name.
	Type    string    `json:"type,omitempty"`
	Code    int       `json:"code,omitempty"`
	Error   string    `json:"error"`
	Remedy  string    `json:"remedy,omitempty"`
	Warning bool      `json:"warning"`
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	Count   int       `json:"count"`
}

// CertificateStatus is when a certificate ends.
type CertificateStatus struct {
	// Of is what uses it: "output NAME", "input NAME" or "bus".
	Of string `json:"of"`
	// File is the key in the configuration, or server for what a server shows.
	File string    `json:"file"`
	End  time.Time `json:"end"`
	// Left may be negative.
	Left float64 `json:"seconds_left"`
}

// parts are the services that a program is made of.
func parts(program string) []string {
	if program == bus.UserCollector {
		return []string{bus.UserFetcher, bus.UserDedup, bus.UserSender}
	}
	return []string{program}
}

// readProcesses adds what the processes tell. That it is not there is a problem to show, and no error.
func (s *Status) readProcesses(ctx context.Context, b *bus.Bus, c *config.Config) {
	for _, name := range fetcher.Enabled(c) {
		s.Inputs[name] = &InputStatus{}
	}
	processes, _, err := status.Read(ctx, b)
	s.unnoticed = err
	ends := map[[2]string]time.Time{}
	for _, p := range processes {
		one := ProcessStatus{
			Program: p.Program, Instance: p.Instance, Build: p.Build, Started: p.Started, Silent: p.Age.Seconds(), Heard: p.Heard(), NotReady: p.NotReady,
			Memory: value(p, status.Memory), Limit: value(p, status.MemoryLimit),
		}
		s.Processes = append(s.Processes, one)
		if !p.Heard() {
			continue // its figures are old
		}
		for _, f := range p.Failures {
			s.Errors = append(s.Errors, ErrorStatus{
				Program: p.Program, Instance: p.Instance, What: f.What, Type: f.Type, Code: f.Code, Error: f.Text, Remedy: f.Hint, Warning: f.Warning,
				Since: f.Since, Last: f.Last, Count: f.Count,
			})
		}
		for name, in := range s.Inputs {
			in.add(p, name)
		}
		if f, ok := p.Figure(status.Unique); ok {
			s.Events.UniquePerSecond += f.PerSecond
		}
		for name, o := range s.Outputs {
			o.add(p, name)
		}
		certificates(p, ends)
	}
	s.delays(processes)
	slices.SortStableFunc(s.Errors, func(a, b ErrorStatus) int {
		if a.Warning != b.Warning {
			if b.Warning {
				return -1
			}
			return 1
		}
		return a.Since.Compare(b.Since)
	})
	for key, end := range ends {
		s.Certificates = append(s.Certificates, CertificateStatus{Of: key[0], File: key[1], End: end, Left: end.Sub(s.Time).Seconds()})
	}
	slices.SortFunc(s.Certificates, func(a, b CertificateStatus) int {
		return cmp.Or(a.End.Compare(b.End), cmp.Compare(a.Of, b.Of), cmp.Compare(a.File, b.File))
	})
}

func value(p status.Process, name string, labels ...string) float64 {
	f, _ := p.Figure(name, labels...)
	return f.Value
}

func (in *InputStatus) add(p status.Process, name string) {
	leader, runs := p.Figure(status.Leader, "input", name)
	if !slices.Contains(parts(p.Program), bus.UserFetcher) {
		return
	}
	if !runs || leader.Value == 0 {
		in.Standby++
		return
	}
	in.Active = p.Instance
	if f, ok := p.Figure(status.ActiveSince, "input", name); ok {
		at := seconds(f.Value)
		in.ActiveSince = &at
	}
	if f, ok := p.Figure(status.LastPage, "input", name); ok {
		at := seconds(f.Value)
		in.LastPage = &at
	}
	if f, ok := p.Figure(status.Rows, "input", name); ok {
		in.RowsPerSecond += f.PerSecond
	}
	if f, ok := p.Figure(status.Stored, "input", name); ok {
		in.NewPerSecond += f.PerSecond
	}
	if f, ok := p.Figure(status.QuotaRemaining); ok {
		in.QuotaRemaining = &f.Value
	}
	if f, ok := p.Figure(status.Throttled); ok {
		in.ThrottledPerMinute += 60 * f.PerSecond
	}
	in.Unreadable = max(in.Unreadable, int(value(p, status.Unreadable, "input", name)))
}

func (o *OutputStatus) add(p status.Process, name string) {
	if f, ok := p.Figure(status.Confirmed, "output", name); ok {
		o.ConfirmedPerSecond += f.PerSecond
	}
	if f, ok := p.Figure(status.Reachable, "output", name); ok {
		reached := f.Value == 1 || o.Reachable != nil && *o.Reachable
		o.Reachable = &reached
	}
}

// delays sets the mean of the last minute over all senders.
func (s *Status) delays(processes []status.Process) {
	for name, o := range s.Outputs {
		var sum, count float64
		for _, p := range processes {
			if p.Heard() {
				total, _ := p.Figure(status.Latency+"_sum", "output", name)
				n, _ := p.Figure(status.Latency+"_count", "output", name)
				sum, count = sum+total.PerSecond, count+n.PerSecond
			}
		}
		if count > 0 {
			mean := sum / count
			o.Delay = &mean
		}
	}
}

// certificates puts the first end of each certificate into ends, over all processes: each has files of its own.
func certificates(p status.Process, ends map[[2]string]time.Time) {
	for _, f := range p.Figures {
		var key [2]string
		switch f.Name {
		case status.OutputCertificate:
			key = [2]string{"output " + f.Labels["output"], f.Labels["file"]}
		case status.InputCertificate:
			key = [2]string{"input " + f.Labels["input"], "client_certificate"}
		case status.BusCertificate:
			key = [2]string{"bus", f.Labels["file"]}
		default:
			continue
		}
		end := seconds(f.Value)
		if known, ok := ends[key]; !ok || end.Before(known) {
			ends[key] = end
		}
	}
}

func seconds(epoch float64) time.Time { return time.UnixMilli(int64(epoch * 1000)).UTC() }
