//go:build !linux

package child

import "os/exec"

// dieWithParent does nothing where the system offers no such thing.
func dieWithParent(*exec.Cmd) {}
