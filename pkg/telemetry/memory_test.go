package telemetry

import (
	"os"
	"runtime"
	"testing"
)

func TestMemoryLine(t *testing.T) {
	const meminfo = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    7720000 kB\nHugePages_Total:       0\n"
	before, err := parseMemory(meminfo, "125949 12155 4000 1 0 2 0\n", 4096)
	if err != nil {
		t.Fatal(err)
	}
	now := Memory{UsedPercent: 40.06, RSS: 3 << 30, VMS: 512}
	const want = "[GC] global: 3.5% -> 40.1%, process: RSS(47.48MiB -> 3.00GiB), VMS(491.99MiB -> 512.00B)"
	if got := MemoryLine(before, now); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, files := range map[string][2]string{
		"no total": {"MemFree: 1 kB\n", "1 2"}, "empty": {"", ""}, "short": {meminfo, "1"}, "no numbers": {meminfo, "a b"},
	} {
		if _, err := parseMemory(files[0], files[1], 4096); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadMemory(t *testing.T) {
	m, err := ReadMemory()
	if runtime.GOOS != "linux" {
		if err == nil {
			t.Error("no error")
		}
		return
	}
	if err != nil || m.RSS < 1<<20 || m.VMS < m.RSS || m.UsedPercent <= 0 || m.UsedPercent >= 100 {
		t.Errorf("%+v, %v (pid %d)", m, err, os.Getpid())
	}
}

func TestMemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:        8000000 kB\nMemFree:          100000 kB\n"
	for name, tc := range map[string]struct {
		limits  []string
		meminfo string
		want    uint64
	}{
		"a container's":        {[]string{"536870912\n"}, meminfo, 512 << 20},
		"none":                 {nil, meminfo, 8000000 << 10},
		"version 2 without":    {[]string{"max\n"}, meminfo, 8000000 << 10},
		"version 1 without":    {[]string{"9223372036854771712\n"}, meminfo, 8000000 << 10},
		"the least of two":     {[]string{"max\n", "1024\n"}, meminfo, 1024},
		"nothing is known":     {[]string{"max\n"}, "", 0},
		"only the container's": {[]string{"1024\n"}, "MemTotal:\n", 1024},
	} {
		if got := memoryLimit(tc.limits, tc.meminfo); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	if got := MemoryLimit(); runtime.GOOS == "linux" && got < 1<<20 {
		t.Errorf("this machine has %d bytes", got)
	}
}
