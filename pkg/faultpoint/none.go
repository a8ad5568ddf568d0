//go:build !faultpoints

package faultpoint

// Hit marks a point. It does nothing in this build.
func Hit(string) {}

// Crash marks work that a message may not survive. It does nothing in this build.
func Crash(string, []byte) {}

// Environment is what a child process needs to have the same points.
func Environment() []string { return nil }
