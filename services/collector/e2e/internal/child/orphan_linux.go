package child

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the system end the process when the test process dies, also by its own time-out.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
