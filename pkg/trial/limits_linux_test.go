package trial

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A large message in a place with little memory is not condemned for that, a small one is.
func TestEnough(t *testing.T) {
	for size, want := range map[int]bool{1 << 10: true, 12 << 20: true, 30 << 20: false} {
		if got := uint64(minData) >= enough(size); got != want {
			t.Errorf("%d bytes: %v", size, got)
		}
	}
	if maxData < enough(32<<20) {
		t.Error("the largest message could never be condemned")
	}
}

func TestSpare(t *testing.T) {
	const none = ^uint64(0)
	for name, tt := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"nothing known": {nil, none},
		"machine":       {map[string]string{"proc/meminfo": "MemTotal: 900 kB\nMemAvailable:   500 kB\n"}, 500 << 10},
		"no limit": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "7\n",
		}, none},
		"group": {map[string]string{
			"proc/meminfo": "MemAvailable: 500 kB\n", "proc/self/cgroup": "1:name=x:/\n0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.current": "900\n",
			"sys/fs/cgroup/a/b/memory.stat": "anon 500\ninactive_file 300\nactive_file 100\n",
		}, 500},
		"group above": {map[string]string{
			"proc/self/cgroup":         "0::/a/b\n",
			"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "60\n",
			"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.current": "60\n",
		}, 40},
		"over the limit": {map[string]string{
			"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "160\n",
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range tt.files {
				full := filepath.Join(root, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o700), os.WriteFile(full, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if got := spareUnder(root); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
