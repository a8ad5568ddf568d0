//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// variable names the point and the number of the hit that kills.
const variable = "COLLECTOR_KILL_AT"

var (
	point, number = parse(os.Getenv(variable))
	hits          atomic.Int64
)

// parse ends the program when the variable says something else: a test that kills nothing must not pass.
func parse(text string) (point string, number int64) {
	if text == "" {
		return "", 0
	}
	point, count, _ := strings.Cut(text, ":")
	number, err := strconv.ParseInt(count, 10, 64)
	if err != nil || number < 1 {
		fmt.Fprintf(os.Stderr, "%s=%q is not name:number\n", variable, text)
		os.Exit(2)
	}
	return point, number
}

// Hit marks a point and kills the process if it is the one that the environment names. It is safe for
// concurrent use.
func Hit(name string) {
	if name != point || hits.Add(1) != number {
		return
	}
	fmt.Fprintf(os.Stderr, "killed at %s:%d\n", name, number)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives, which may take a moment; nothing may happen in it
}
