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
