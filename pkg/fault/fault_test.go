package fault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"defenderiot/pkg/fault"
)

func TestErrorPrintsTheKnownForm(t *testing.T) {
	cause := errors.New("boom")
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"setup":         {fault.Setup(101, "Failed to fetch OAuth token from %s. Exception: %v.", "https://login", cause), "SetupError [CODE:0101] reason: Failed to fetch OAuth token from https://login. Exception: boom."},
		"init":          {fault.InitVariables(2, "Invalid start_time_in_utc: %s. Must be in the past.", "x"), "InitVariablesError [CODE:0002] reason: Invalid start_time_in_utc: x. Must be in the past."},
		"configuration": {fault.Config(6, "Required configuration data is missing"), `CollectorConfigurationException [CODE:0006] Error in configuration, cause: "Required configuration data is missing"`},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	if err := fault.Setup(101, "x: %v", cause); !errors.Is(err, cause) {
		t.Error("the cause is not in the tree")
	}
}

func TestClassesSurviveWrapping(t *testing.T) {
	base := errors.New("base")
	wrap := func(err error) error { return fmt.Errorf("outer: %w", err) }
	if !fault.IsPermanent(wrap(fault.Permanent(base))) || fault.IsPermanent(base) {
		t.Error("permanent class")
	}
	if d, ok := fault.Delay(wrap(fault.RetryAfter(base, 3*time.Second))); !ok || d != 3*time.Second {
		t.Errorf("retry-after class: %v %v", d, ok)
	}
	if _, ok := fault.Delay(base); ok {
		t.Error("a plain error has a delay")
	}
	if !fault.IsShuttingDown(wrap(fault.ShuttingDown(base))) || !fault.IsShuttingDown(fault.ShuttingDown(nil)) {
		t.Error("shutting-down class")
	}
	for _, err := range []error{fault.Permanent(nil), fault.RetryAfter(nil, time.Second), fault.WithHint(nil, "x")} {
		if err != nil {
			t.Errorf("nil became %v", err)
		}
	}
}

func TestHint(t *testing.T) {
	if got := fault.Hint(fmt.Errorf("x: %w", fault.API(403, "no").WithHint("grant Security Reader"))); got != "grant Security Reader" {
		t.Errorf("named error: %q", got)
	}
	if got := fault.Hint(fmt.Errorf("x: %w", fault.WithHint(errors.New("y"), "do z"))); got != "do z" {
		t.Errorf("plain error: %q", got)
	}
	if got := fault.Hint(errors.New("y")); got != "" {
		t.Errorf("no hint: %q", got)
	}
}
