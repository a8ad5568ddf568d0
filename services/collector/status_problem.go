package collector

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/certificate"
	"defenderiot/pkg/config"
	"defenderiot/proto"
	"defenderiot/services/dedup"
	"defenderiot/services/fetcher"
)

// The bounds of deploy/prometheus/rules.yml, without its patience.
const (
	lateAfter      = 10 * time.Minute
	pageAfter      = 15 * time.Minute
	fillsFrom      = 0.8
	fullFrom       = 0.95
	quotaUsed      = 2
	criticalExpiry = 7 * 24 * time.Hour
)

// Problem is one thing that somebody has to look at.
type Problem struct {
	// Critical: alerts do not arrive, or may be lost. Else they will not, if it goes on.
	Critical bool `json:"critical"`
	// Name is that of the alarm; docs/operating.md says under it what to do.
	Name string `json:"name"`
	Text string `json:"text"`
	// Do is the first step.
	Do string `json:"do"`
}

func (s *Status) problem(critical bool, name, do, text string, args ...any) {
	s.Problems = append(s.Problems, Problem{Critical: critical, Name: name, Text: fmt.Sprintf(text, args...), Do: do})
}

// judge fills Problems from everything else.
func (s *Status) judge(c *config.Config) {
	s.judgeProcesses(c)
	for _, name := range keys(s.Inputs) {
		s.judgeInput(name, s.Inputs[name])
	}
	for _, name := range keys(s.Outputs) {
		s.judgeOutput(name, s.Outputs[name])
	}
	for _, name := range keys(s.Streams) {
		v := s.Streams[name]
		switch {
		case v.Fill > fullFrom:
			s.problem(true, "StreamFull", "mend the output that is behind, or raise bus.limits", "%s is %.0f %% full: the stage before it waits", name, 100*v.Fill)
		case v.Fill > fillsFrom:
			s.problem(false, "StreamFills", "mend the output that is behind, or raise bus.limits", "%s is %.0f %% full", name, 100*v.Fill)
		}
		if v.Lost > 0 {
			s.problem(true, "MessagesLost", "look at the disk, then `collector reconcile`", "the bus has lost %d messages of %s; what belongs to them is fetched again", v.Lost, name)
		}
	}
	if dedup.ShowsLoss(s.Loss, s.Time) && s.Loss.Gone > 0 {
		s.problem(true, "AlertsGone", "ask Devo, or a backup, for the hashes in `collector status --json` (loss.hashes)", "%d alerts that the bus has lost are not in Azure any more", s.Loss.Gone)
	}
	if s.DeadLetters > 0 {
		s.problem(false, "DeadLetters", "`collector dead list`", "%d dead letters wait for a decision", s.DeadLetters)
	}
	for _, v := range s.Certificates {
		left := v.End.Sub(s.Time)
		if left < certificate.Notice {
			name := "CertificateExpires"
			if left < criticalExpiry {
				name = "CertificateExpiresNow"
			}
			s.problem(left < criticalExpiry, name, "replace it: docs/operating.md", "certificate of %s (%s) %s", v.Of, v.File, ends(left))
		}
	}
	slices.SortStableFunc(s.Problems, func(a, b Problem) int {
		switch {
		case a.Critical == b.Critical:
			return 0
		case a.Critical:
			return -1
		}
		return 1
	})
}

func ends(left time.Duration) string {
	if left < 0 {
		return "has expired"
	}
	return "ends in " + short(left)
}

func (s *Status) judgeProcesses(c *config.Config) {
	if errors.Is(s.unnoticed, jetstream.ErrStreamNotFound) {
		s.problem(false, "KeeperStalled", "run `collector provision` once", "the bus has no bucket of status records: errors, quota, rates and certificates are not known")
		return
	}
	if s.unnoticed != nil {
		s.problem(false, "ProgramTooOld", "use programs of one version", "status records cannot be read: %v", s.unnoticed)
	}
	running := map[string]bool{}
	for _, p := range s.Processes {
		if !p.Heard {
			s.problem(false, "ProgramDown", "start it, unless another has taken its place", "%s %s is not heard of for %s", p.Program, p.Instance, short(time.Duration(p.Silent*float64(time.Second))))
			continue
		}
		for _, part := range parts(p.Program) {
			running[part] = true
		}
		for _, part := range keys(p.NotReady) {
			s.judgeUnready(p, part)
		}
		if p.Limit > 0 && p.Memory > 0.9*p.Limit {
			s.problem(false, "MemoryNearLimit", "raise the limit, keep /debug/pprof/heap", "%s %s uses %.0f %% of its memory", p.Program, p.Instance, 100*p.Memory/p.Limit)
		}
	}
	for part, name := range map[string]string{bus.UserFetcher: "NoActiveFetcher", bus.UserDedup: "KeeperStalled", bus.UserSender: "NoSender"} {
		if !running[part] && (part != bus.UserFetcher || len(fetcher.Enabled(c)) > 0) {
			s.problem(true, name, "start it; its log says why it ended", "no %s is heard of", part)
		}
	}
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return strings.Compare(a.Name, b.Name) })
}

// judgeUnready is about a part that cannot do its work, unless an error or an output says so already.
func (s *Status) judgeUnready(p ProcessStatus, part string) {
	text := fmt.Sprintf("%s %s: %s is not ready: %s", p.Program, p.Instance, part, p.NotReady[part])
	switch {
	case part == "bus":
		s.problem(true, "BusUnreachable", "is the server up, is everything provisioned?", "%s", text)
	case strings.HasPrefix(part, bus.UserFetcher) && !slices.ContainsFunc(s.Errors, func(e ErrorStatus) bool { return e.Instance == p.Instance }):
		s.problem(false, "PullsFail", "its log says why", "%s", text)
	}
}

func (s *Status) judgeInput(name string, in *InputStatus) {
	if in.Active == "" {
		if in.Standby > 0 {
			s.problem(true, "NoActiveFetcher", "a takeover takes 15 s; else see the errors", "no fetcher is active for %s, %d stand by", name, in.Standby)
		}
		return
	}
	last := in.LastPage
	if since := in.ActiveSince; last == nil || since != nil && since.After(*last) { // it never got one, or not this time
		last = since
	}
	if last != nil && s.Time.Sub(*last) > pageAfter {
		s.problem(true, "NoPage", "see the errors; else look whether RAW is full", "Azure has answered %s with no page for %s", name, short(s.Time.Sub(*last)))
	}
	if in.Unreadable > 0 {
		s.problem(false, "SubscriptionsUnreadable", "grant Security Reader on them; the log names them", "%d subscriptions of %s cannot be read", in.Unreadable, name)
	}
	if in.ThrottledPerMinute >= 1 {
		s.problem(false, "QuotaNearlyUsed", "lower quota_share, or a principal of its own", "Azure throttles %s: %.0f answers with 429 in the last minute", name, in.ThrottledPerMinute)
	}
}

func (s *Status) judgeOutput(name string, o *OutputStatus) {
	if o.Reachable != nil && !*o.Reachable {
		s.problem(true, "OutputUnreachable", "see the errors; `collector check` tries it", "output %s cannot be reached; alerts wait", name)
	}
	if waited := time.Duration(o.Oldest * float64(time.Second)); waited > lateAfter {
		alarm, critical := "DeliveryLate", false
		if o.ConfirmedPerSecond == 0 {
			alarm, critical = "NothingConfirmed", true
		}
		s.problem(critical, alarm, "see the errors and the output's line", "output %s is behind: %d pending, the oldest for %s", name, o.Pending, short(waited))
	}
	if o.Proof == proto.ProofUnproved {
		s.problem(false, "DeliveryUnproved", "docs/delivery.md: ask who runs the endpoint", "output %s answers no half-close: delivery is not proved", name)
	}
}
