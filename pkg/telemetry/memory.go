package telemetry

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what the machine and this process use at one moment.
type Memory struct {
	UsedPercent float64 // of the machine's memory: what is not available for programs
	RSS, VMS    uint64  // bytes of this process
}

// ReadMemory asks Linux (proc(5): meminfo, statm). Elsewhere it is an error.
func ReadMemory() (Memory, error) {
	machine, err1 := os.ReadFile("/proc/meminfo")
	process, err2 := os.ReadFile("/proc/self/statm")
	if err := errors.Join(err1, err2); err != nil {
		return Memory{}, fmt.Errorf("memory: %w", err)
	}
	return parseMemory(string(machine), string(process), uint64(os.Getpagesize()))
}

func parseMemory(meminfo, statm string, page uint64) (Memory, error) {
	values := map[string]float64{}
	for line := range strings.Lines(meminfo) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			if v, err := strconv.ParseFloat(fields[0], 64); err == nil {
				values[name] = v
			}
		}
	}
	total, available := values["MemTotal"], values["MemAvailable"]
	if total <= 0 {
		return Memory{}, errors.New("memory: /proc/meminfo has no MemTotal")
	}
	fields := strings.Fields(statm)
	if len(fields) < 2 {
		return Memory{}, errors.New("memory: /proc/self/statm is not as expected")
	}
	size, err1 := strconv.ParseUint(fields[0], 10, 64)
	resident, err2 := strconv.ParseUint(fields[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return Memory{}, fmt.Errorf("memory: /proc/self/statm: %w", err)
	}
	return Memory{UsedPercent: 100 * (total - available) / total, RSS: resident * page, VMS: size * page}, nil
}

// MemoryLimit is the most memory that this process can get, in bytes: the limit of its control group (version 2, then 1,
// as a container sees its own), else the machine's memory; 0 if neither is known, as on systems that are not Linux.
func MemoryLimit() uint64 {
	var limits []string
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(path); err == nil {
			limits = append(limits, string(text))
		}
	}
	machine, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return memoryLimit(limits, string(machine))
}

// memoryLimit takes the least of them: without a limit the one says "max", the other a number near 2^63.
func memoryLimit(limits []string, meminfo string) uint64 {
	total := uint64(0)
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				kib, _ := strconv.ParseUint(fields[0], 10, 64) // 0: not known
				total = kib << 10
			}
		}
	}
	for _, text := range limits {
		if limit, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err == nil && limit > 0 && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// MemoryLine is the line that people search for.
func MemoryLine(before, now Memory) string {
	return fmt.Sprintf("[GC] global: %.1f%% -> %.1f%%, process: RSS(%s -> %s), VMS(%s -> %s)",
		before.UsedPercent, now.UsedPercent, size(before.RSS), size(now.RSS), size(before.VMS), size(now.VMS))
}

func size(bytes uint64) string {
	v := float64(bytes)
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.2f%s", v, units[i])
}
