//go:build !faultpoints

package faultpoint

import "time"

// Hit marks a point. It does nothing in this build.
func Hit(string) {}

// Crash marks work that a message may not survive. It does nothing in this build.
func Crash(string, []byte) {}

// Environment is what a child process needs to have the same points.
func Environment() []string { return nil }

// Now is this machine's wall clock, which a test build can be told to have wrong.
func Now() time.Time { return time.Now() }
