package collector

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// bad night: everything that can be wrong, with texts of any length.
func badNight() *Status {
	now := time.Date(2026, 11, 29, 3, 12, 40, 0, time.UTC)
	away, zero, delay := false, 0.0, 12.5
	page := now.Add(-20 * time.Minute)
	s := &Status{
		Time:    now,
		Sources: map[string]*SourceStatus{"defender_for_iot,1,iot_security_alerts": {LastEventTime: now.Add(-time.Hour), Generation: 1}},
		Inputs:  map[string]*InputStatus{"defender_for_iot": {Active: "vm-aaaaaaaaaa", LastPage: &page, QuotaRemaining: &zero, ThrottledPerMinute: 12, Unreadable: 2}},
		Events:  EventStatus{Received: 10, Unique: 9, Waiting: 1, Oldest: 3},
		Outputs: map[string]*OutputStatus{
			"devo_1": {Confirmed: 4, Pending: 5, Oldest: 3600, Reachable: &away, Proof: proto.ProofUnproved, Delay: &delay},
			"relay":  {Confirmed: 9, Proof: proto.ProofHalfClose},
		},
		Streams:        map[string]*StreamStatus{"RAW": {Limit: 1 << 30}, "UNIQUE": {Limit: 16 << 30, Fill: 0.97}, "DEAD": {Limit: 1 << 30, Lost: 1}},
		Loss:           &proto.Loss{State: proto.LossReading, Messages: map[string]uint64{"DEAD": 1}, Gone: 2},
		DeadLetters:    3,
		LastDeadLetter: &LetterStatus{Time: now.Add(-time.Minute), Stage: "sender", Output: "devo_1", Reason: "a reason\x1b[2Jwith a sequence\nand a line break"},
		Certificates:   []CertificateStatus{{Of: "bus", File: "server", End: now.Add(24 * time.Hour)}, {Of: "output devo_1", File: "cert", End: now.Add(20 * 24 * time.Hour)}},
		Processes: []ProcessStatus{
			{Program: "fetcher", Instance: "vm-aaaaaaaaaa", Started: now.Add(-time.Hour), Silent: 2, Heard: true, Memory: 95, Limit: 100, NotReady: map[string]string{"bus": "waiting"}},
			{Program: "sender", Instance: "vm-bbbbbbbbbb", Started: now.Add(-time.Hour), Silent: 90},
		},
		unnoticed: errors.New("status record: newer"),
	}
	for i := range 6 {
		s.Errors = append(s.Errors, ErrorStatus{Program: "fetcher", Instance: "vm-aaaaaaaaaa", What: "The pull failed", Type: "ApiError", Code: 401,
			Error: strings.Repeat("ApiError [CODE:0401] reason: Error during API call ", i+1), Remedy: fmt.Sprintf("remedy %d, %s", i, strings.Repeat("and so on ", 20)), Since: now.Add(-time.Hour), Last: now, Count: i + 1})
	}
	s.judge(&config.Config{Inputs: map[string]config.Input{}})
	return s
}

func TestStatusNamesEveryProblem(t *testing.T) {
	s := badNight()
	named := map[string]bool{}
	for _, p := range s.Problems {
		named[p.Name] = true
		if p.Text == "" || p.Do == "" {
			t.Errorf("%+v", p)
		}
	}
	for _, want := range []string{
		"NoPage", "QuotaNearlyUsed", "SubscriptionsUnreadable", "OutputUnreachable", "NothingConfirmed", "DeliveryUnproved", "StreamFull", "MessagesLost", "AlertsGone",
		"DeadLetters", "CertificateExpires", "CertificateExpiresNow", "ProgramDown", "ProgramTooOld", "BusUnreachable", "MemoryNearLimit", "NoSender", "KeeperStalled",
	} {
		if !named[want] {
			t.Errorf("no problem %s", want)
		}
	}
	warned := false
	for _, p := range s.Problems {
		if p.Critical && warned {
			t.Errorf("%s is critical and comes late", p.Name)
		}
		warned = warned || !p.Critical
	}
	if (&Status{}).verdict() != "all is well" {
		t.Error("nothing is wrong, and it does not say so")
	}
}

// A fetcher that has been active for long and never got a page is one without a page.
func TestNoPageAtAll(t *testing.T) {
	now := time.Date(2026, 11, 29, 3, 12, 40, 0, time.UTC)
	for active, want := range map[time.Duration]bool{time.Minute: false, 20 * time.Minute: true} {
		since := now.Add(-active)
		before := now.Add(-time.Hour) // when it was active before
		for _, page := range []*time.Time{nil, &before} {
			s := &Status{Time: now}
			s.judgeInput("a", &InputStatus{Active: "vm", ActiveSince: &since, LastPage: page})
			if got := len(s.Problems) == 1 && s.Problems[0].Name == "NoPage" && s.Problems[0].Critical; got != want {
				t.Errorf("active for %v, last page %v: %+v", active, page, s.Problems)
			}
		}
	}
}

// On every terminal the picture fits, both what is wrong and where everything stands is to be seen, and nothing of
// what others wrote reaches the terminal as a command.
func TestStatusFitsTheTerminal(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {132, 43}, {40, 10}, {200, 60}, {1, 1}} {
		width, height := size[0], size[1]
		p := picture(badNight(), nil, width, height)
		text := p.text(width, false)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) > height {
			t.Errorf("%d lines on %dx%d", len(lines), width, height)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width {
				t.Errorf("%dx%d: %q", width, height, line)
			}
		}
		if width < 80 {
			continue
		}
		for _, want := range []string{"critical", "CRITICAL ", "more lines", "defender_for_iot", "devo_1  away", "unproved", "UNIQUE 97 %"} {
			if !strings.Contains(text, want) && (want != "more lines" || height < 50) {
				t.Errorf("%dx%d has no %q:\n%s", width, height, want, text)
			}
		}
	}
	whole := badNight().view(0, 0).text(0, false)
	for _, want := range []string{"certificate", "ends in 24h", "ApiError [CODE:0401]", "remedy 5", "rotations", "not for 90s", "3 dead letters, the last 60s ago by sender devo_1: a reason [2Jwith a sequence and a line break"} {
		if !strings.Contains(whole, want) {
			t.Errorf("no %q:\n%s", want, whole)
		}
	}
	if strings.ContainsRune(whole, '\x1b') {
		t.Errorf("a sequence without colours: %q", whole)
	}
	if coloured := badNight().view(0, 0).text(0, true); !strings.Contains(coloured, "\x1b[1;31mCRITICAL \x1b[0m") || strings.Contains(coloured, "\x1b[2J") {
		t.Errorf("colours: %q", coloured)
	}
}

func TestWatchGoesOnWithoutTheBus(t *testing.T) {
	err := fault.WithHint(errors.New("no collector is running"), "start it")
	for name, last := range map[string]*Status{"never seen": nil, "seen": badNight()} {
		text := picture(last, err, 80, 24).text(80, false)
		if !strings.Contains(text, "BusUnreachable") || !strings.Contains(text, "no collector is running") || !strings.Contains(text, "do start it") || strings.Contains(text, "below is how it was") != (last != nil) {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	var out strings.Builder
	s := &screen{w: &out, size: func() (int, int) { return 80, 24 }}
	t.Setenv("NO_COLOR", "1")
	s.draw(picture(badNight(), nil, 80, 24), 80)
	if drawn := out.String(); s.colours() || strings.Contains(drawn, "\x1b[1;31m") || strings.Contains(drawn, "\x1b[2J") || !strings.HasPrefix(drawn, "\x1b[?2026h\x1b[H") {
		t.Errorf("%q", drawn)
	}
}
