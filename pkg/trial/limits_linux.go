package trial

import (
	"os"
	"syscall"
)

// self is this very program, even when its file has been replaced meanwhile.
func self() (string, error) { return "/proc/self/exe", nil }

// bound limits the child's memory, and has the system end the child rather than the service where a container runs
// out of it.
func bound() {
	limit := syscall.Rlimit{Cur: maxData, Max: maxData}
	_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)
}

// owned makes the child end with its parent, even if it is busy.
func owned() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
