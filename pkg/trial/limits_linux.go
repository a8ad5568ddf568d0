package trial

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// self is this very program, even when its file has been replaced meanwhile.
func self() (string, error) { return "/proc/self/exe", nil }

// bound limits the child's memory, and has the system end the child rather than the service where a container runs
// out of it.
func bound(bytes uint64) {
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)
}

// owned makes the child end with its parent, even if it is busy.
func owned() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// spare is how much memory is left to this process: by the machine, and by the control groups (version 2) that it is
// in. What cannot be read does not limit.
func spare() uint64 { return spareUnder("/") }

func spareUnder(root string) uint64 {
	left := ^uint64(0)
	if text, err := os.ReadFile(filepath.Join(root, "proc/meminfo")); err == nil {
		if kib, ok := field(text, "MemAvailable:"); ok {
			left = kib << 10
		}
	}
	group := "/"
	if text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")); err == nil {
		for line := range strings.Lines(string(text)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				group = path
			}
		}
	}
	for ; ; group = filepath.Dir(group) {
		left = min(left, spareOf(filepath.Join(root, "sys/fs/cgroup", group)))
		if group == "/" || group == "." {
			return left
		}
	}
}

// spareOf is what one control group leaves. The files that it has cached are given up when memory is needed.
func spareOf(dir string) uint64 {
	limit, ok1 := number(filepath.Join(dir, "memory.max")) // "max": none
	used, ok2 := number(filepath.Join(dir, "memory.current"))
	if !ok1 || !ok2 {
		return ^uint64(0)
	}
	if stat, err := os.ReadFile(filepath.Join(dir, "memory.stat")); err == nil {
		for _, name := range []string{"inactive_file", "active_file"} {
			if cached, ok := field(stat, name); ok {
				used -= min(used, cached)
			}
		}
	}
	return limit - min(limit, used)
}

func number(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// field finds "name value" at the beginning of a line.
func field(text []byte, name string) (uint64, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == name {
			n, err := strconv.ParseUint(words[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
