//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// clockVariable names a file that says how far this machine's clock is off, such as -1h. It is read each time, so the clock
// can be changed while the program runs.
const clockVariable = "COLLECTOR_CLOCK"

var clockFile = os.Getenv(clockVariable)

// Now is this machine's wall clock, without a monotonic part if it is off.
func Now() time.Time {
	now := time.Now()
	if clockFile == "" {
		return now
	}
	text, err := os.ReadFile(clockFile)
	off, parseErr := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil || parseErr != nil {
		fmt.Fprintf(os.Stderr, "%s=%q does not name a file with a duration\n", clockVariable, clockFile)
		os.Exit(2)
	}
	return now.Round(0).Add(off)
}
