package fetcher

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
)

func TestSetupIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Minute))
		w.onPage = func(resourcegraph.Query, int) error {
			return fault.API(403, "Error during API call to x").WithHint("grant it")
		}
		r := w.start(t, func(o *Options) { o.Service.Endpoint = "https://management.azure.com" })
		w.settle(10 * time.Minute)
		w.with(func() {
			if n := len(w.queries); n < 24 || n > 26 {
				t.Errorf("%d tries in ten minutes", n)
			}
			if n := r.logs.count("SetupError [CODE:0102] reason: Failed to fetch data from https://management.azure.com. Source is not pullable."); n != 1 {
				t.Errorf("%d lines", n)
			}
			if r.logs.count("hint=grant it") != 1 {
				t.Error("no hint")
			}
			w.onPage = nil
		})
		if err := r.Ready(); err == nil {
			t.Error("ready without a set-up")
		}
		w.settle(40 * time.Minute)
		if !w.rawHas("/a") || r.Ready() != nil {
			t.Error("no recovery")
		}
		r.halt(t)
	})
}

// refuse lets every query fail with err.
func (w *world) refuse(err error) {
	w.with(func() { w.onPage = func(resourcegraph.Query, int) error { return err } })
}

func (w *world) mend() { w.with(func() { w.onPage = nil }) }

// waits are the waits that the log names.
func (l *logs) waits() (out []int) {
	for _, line := range l.all() {
		var n int
		if _, err := fmt.Sscanf(line, "INFO Sleeping %d seconds before next retry", &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func TestWaitsBetweenSetups(t *testing.T) {
	forbidden := fault.API(403, "Error during API call to x")
	for name, tc := range map[string]struct {
		err  error
		want []int
	}{
		"no right":          {forbidden, []int{5, 25, 25, 25, 25, 25}},
		"a fault of Azure":  {fault.API(498, "Error during API call to x"), []int{5, 25, 25, 25, 25, 25}},
		"no answer":         {fault.Pull(301, "No answer from x."), []int{5, 25, 25, 25, 25, 25}},
		"a wrong secret":    {fault.Setup(101, "Failed to fetch OAuth token from x."), []int{5, 25, 125, 625, 1800, 1800}},
		"no token just now": {fault.Setup(101, "Failed to fetch OAuth token from x. Exception: %v.", resourcegraph.ErrTransient), []int{5, 25, 25, 25, 25, 25}},
		"a wait asked for":  {fault.RetryAfter(fault.API(429, "Error during API call to x"), 150*time.Second+time.Millisecond), []int{151, 151, 151, 151, 151, 151}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.refuse(tc.err)
				r := w.start(t, nil)
				begun := time.Now()
				for _, seconds := range tc.want[:5] {
					w.settle(time.Duration(seconds) * time.Second)
				}
				w.settle(time.Second)
				if got := r.logs.waits(); !slices.Equal(got, tc.want) {
					t.Errorf("waits %v, want %v", got, tc.want)
				}
				if n := len(w.queries); n != 6 {
					t.Errorf("%d tries in %v, want 6", n, time.Since(begun))
				}
				if n := r.logs.count("ERROR SetupError [CODE:01"); n != 1 || r.logs.count("INFO Retrying collector setup: 6/∞") != 1 {
					t.Errorf("%d error lines:\n%s", n, strings.Join(r.logs.all(), "\n"))
				}
				w.mend()
				w.settle(time.Hour)
				if r.logs.count("INFO Setup for module <IotPuller> has been successfully executed") != 1 || r.Ready() != nil {
					t.Error("no recovery")
				}
				r.halt(t)
			})
		})
	}
}

func TestANewCredentialIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.refuse(fault.API(403, "Error during API call to x"))
		r := w.start(t, nil)
		w.settle(20 * time.Minute) // in the wait of 1,800 s
		w.mend()
		w.with(func() { w.renewed = true })
		w.settle(6 * time.Second)
		if r.logs.count("The data is up to date!") != 1 {
			t.Errorf("the new credential was not tried:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
	})
}

func TestSetupIsDoneAgainAtIntervals(t *testing.T) {
	for refresh, want := range map[time.Duration]int{0: 1, 10 * time.Minute: 6} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r := w.start(t, func(o *Options) { o.Service.Refresh = refresh })
			w.settle(59 * time.Minute)
			if n := r.logs.count("Successfully tested fetch for "); n != want {
				t.Errorf("every %v: %d set-ups in 59 minutes, want %d", refresh, n, want)
			}
			if n := r.logs.count("WARNING"); n > 5 {
				t.Errorf("a set-up at its interval is no warning")
			}
			r.halt(t)
		})
	}
}

// A failed pull is followed by the set-up, whose own failures hold the pulls back.
func TestSetupIsDoneAgainAfterAFailedPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		w.settle(30 * time.Second)
		w.refuse(fault.API(401, "Error during API call to x").WithHint("look at the clock"))
		from := len(r.logs.all())
		w.settle(92 * time.Second)
		w.mend()
		w.settle(30 * time.Second)
		want := []string{
			"INFO Pull Started",
			"INFO Fetching all ",
			"ERROR ApiError [CODE:0401] reason: Error during API call to x hint=look at the clock",
			"WARN Waiting until setup thread will execute again",
			"WARN The token/header/authentication is expired and it needs to be refreshed",
			"ERROR SetupError [CODE:0102] reason: Failed to fetch data from Azure Resource Graph. Source is not pullable. (ApiError [CODE:0401] reason: Error during API call to x) hint=look at the clock",
			"INFO Retrying collector setup: 1/∞",
			"INFO Sleeping 5 seconds before next retry",
			"INFO Successfully tested fetch for ",
			"INFO Setup for module <IotPuller> has been successfully executed",
			"INFO Pull Started",
		}
		got := r.logs.all()[from:]
		for i, line := range want {
			if i >= len(got) || !strings.HasPrefix(got[i], line) {
				t.Fatalf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		if r.logs.count("INFO the pull succeeded again failures=1") != 1 {
			t.Error("no end of the failure")
		}
		r.halt(t)
	})
}

// While a puller waits for its set-up it says so at once and every 15 s, before the first set-up in other words than
// after a failed pull; and no more once it pulls.
func TestWaitingForTheSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.refuse(fault.API(403, "Error during API call to x"))
		r := w.start(t, nil)
		w.settle(61 * time.Second)
		if n := r.logs.count("WARN Waiting until setup will be executed"); n != 5 {
			t.Errorf("%d lines in 61 s, want 5", n)
		}
		w.mend()
		w.settle(time.Minute)
		before := r.logs.count("WARN Waiting until setup will be executed")
		w.settle(10 * time.Minute)
		if n := r.logs.count("WARN Waiting until setup"); n != before {
			t.Errorf("%d lines while it pulls", n-before)
		}
		w.refuse(fault.API(403, "Error during API call to x"))
		w.settle(4 * time.Minute)
		// The failed pull says it first, the set-up before the next pull repeats it.
		if n := r.logs.count("WARN Waiting until setup thread will execute again"); n < 10 || n > 14 {
			t.Errorf("%d lines in the three minutes after a failed pull", n)
		}
		if n := r.logs.count("WARN Waiting until setup will be executed"); n != before {
			t.Errorf("%d lines of the first wait after it", n-before)
		}
		r.halt(t)
	})
}

// The known line of an override: for each key that is given, also with the value that it had before.
func TestLinesOfOverridingRules(t *testing.T) {
	for name, tt := range map[string]struct{ given, want string }{
		"none":     {"", ""},
		"another":  {"my.app.iot.alerts", "Overriding rule #1 - service key <override_tag> with value <my.app.iot.alerts> overrides definition key <tag> with value <edr.microsoft_defender.iot_security.alert> when the first is not <None>"},
		"the same": {defaultTag, "Overriding rule #1 - service key <override_tag> with value <edr.microsoft_defender.iot_security.alert> overrides definition key <tag> with value <edr.microsoft_defender.iot_security.alert> when the first is not <None>"},
	} {
		c := &config.Config{Inputs: map[string]config.Input{"x": {Services: config.Services{IoTSecurityAlerts: config.IoTSecurityAlerts{OverrideTag: tt.given}}}}}
		s, err := service(c, "x")
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		log := &logs{}
		f := &Fetcher{source: testSource, service: s, mainLogger: slog.New(log)}
		f.sayInitialised()
		for _, line := range log.all() {
			if strings.Contains(line, "Overriding rule #") {
				said = append(said, line)
			}
		}
		if got := strings.Join(said, "\n"); tt.want == "" && got != "" || tt.want != "" && got != "INFO "+tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// A pull that finds no token has the set-up's failure, told once.
func TestAMissingTokenIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, nil)
		w.settle(30 * time.Second)
		w.refuse(fault.Setup(101, "Failed to fetch OAuth token from x. Exception: y."))
		w.settle(5 * time.Minute)
		if n := r.logs.count("ERROR"); n != 1 || r.logs.count("ERROR SetupError [CODE:0101]") != 1 {
			t.Errorf("%d error lines:\n%s", n, strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
	})
}

// What requests_limits hold back is late and not failed.
func TestLimitsAreNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Hour))
		free := time.Now()
		w.with(func() {
			w.onPage = func(resourcegraph.Query, int) error {
				if d := time.Until(free); d > 0 {
					return fault.RetryAfter(fmt.Errorf("x: %w", resourcegraph.ErrLimited), d)
				}
				free = time.Now().Add(2 * time.Hour)
				return nil
			}
		})
		r := w.start(t, nil)
		w.settle(3 * time.Hour)
		if !w.rawHas("/a") || r.logs.count("ERROR") != 0 || r.logs.count("no wait will be applied") == 0 {
			t.Errorf("log:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
	})
}

func TestPasses(t *testing.T) {
	if !passes(errors.New("asking Azure Resource Graph: context deadline exceeded")) || passes(fault.Config(15, "no table")) {
		t.Error("a deadline passes by itself, a missing table does not")
	}
}
