package status

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/proto"
)

// The metrics that a record holds; docs/operating.md says what they are. A name that is not shown by a program is
// simply missing.
const (
	Rows           = "collector_fetcher_rows_total"
	Known          = "collector_fetcher_duplicates_total"
	Stored         = "collector_fetcher_new_total"
	LastPage       = "collector_fetcher_last_page_timestamp_seconds"
	Leader         = "collector_fetcher_leader"
	ActiveSince    = "collector_fetcher_active_since_timestamp_seconds"
	Unreadable     = "collector_fetcher_unreadable_subscriptions"
	QuotaRemaining = "resourcegraph_quota_remaining"
	Throttled      = "resourcegraph_throttled_total"
	Unique         = "collector_dedup_unique_total"
	Duplicates     = "collector_dedup_duplicates_total"
	Confirmed      = "collector_sender_confirmed_total"
	Unclean        = "collector_sender_unclean_total"
	Reachable      = "collector_sender_reachable"
	Latency        = "collector_sender_alert_to_confirmation_seconds"
	Memory         = "process_resident_memory_bytes"
	MemoryLimit    = "collector_memory_limit_bytes"
	// Certificate ends, in seconds since the epoch.
	OutputCertificate = "collector_sender_certificate_expiry_timestamp_seconds"
	InputCertificate  = "collector_fetcher_certificate_expiry_timestamp_seconds"
	BusCertificate    = "collector_bus_certificate_expiry_timestamp_seconds"
)

var shown = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		Rows, Known, Stored, LastPage, Leader, ActiveSince, Unreadable, QuotaRemaining, Throttled, Unique, Duplicates, Confirmed, Unclean, Reachable,
		Latency, Memory, MemoryLimit, OutputCertificate, InputCertificate, BusCertificate,
	} {
		m[name] = true
	}
	return m
}()

// Silent is how long a process may not have written its record before it counts as not heard of.
const Silent = 4 * Period

// Process is one process's record.
type Process struct {
	proto.ProcessStatus
	// Age is the time since the record was written, by the server's clock.
	Age time.Duration
}

// Heard says that the process wrote its record lately.
func (p Process) Heard() bool { return p.Age < Silent }

// Figure is the process's figure of that name, with the labels given as name and value in turns; ok is false
// without one.
func (p Process) Figure(name string, labels ...string) (f proto.StatusFigure, ok bool) {
	for _, f := range p.Figures {
		if f.Name == name && matches(f.Labels, labels) {
			return f, true
		}
	}
	return proto.StatusFigure{}, false
}

func matches(have map[string]string, want []string) bool {
	for i := 0; i+1 < len(want); i += 2 {
		if have[want[i]] != want[i+1] {
			return false
		}
	}
	return true
}

// Read returns the records of all processes, in the order of their names, and the server's time. A record that cannot
// be read (of a newer version, perhaps) is left out and part of the error, beside those that can. Without the bucket
// the error wraps [jetstream.ErrStreamNotFound].
func Read(ctx context.Context, b *bus.Bus) (processes []Process, now time.Time, err error) {
	found, now, err := b.ReadStatuses(ctx)
	if err != nil {
		return nil, now, err
	}
	var errs []error
	for _, s := range found {
		record, err := proto.DecodeStatus(s.Data)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		processes = append(processes, Process{ProcessStatus: *record, Age: max(0, now.Sub(s.Time))})
	}
	slices.SortFunc(processes, func(a, b Process) int {
		return strings.Compare(a.Program+"\x00"+a.Instance, b.Program+"\x00"+b.Instance)
	})
	return processes, now, errors.Join(errs...)
}
