//go:build !linux

package trial

import (
	"os"
	"syscall"
)

func self() (string, error) { return os.Executable() }

// bound has the child's collector alone to limit its memory.
func bound(uint64) {}

func owned() *syscall.SysProcAttr { return nil }

func spare() uint64 { return ^uint64(0) }
