//go:build !faultpoints

package faultpoint

import "time"

// Hit marks a point. It does nothing in this build.
func Hit(string) {}

// Now is this machine's wall clock, which a test build can be told to have wrong.
func Now() time.Time { return time.Now() }
