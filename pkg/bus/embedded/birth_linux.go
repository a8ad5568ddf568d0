package embedded

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// birth is when a file was made, "" where the file system does not keep that.
func birth(path string) (string, error) {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &s); err != nil {
		return "", fmt.Errorf("birth time of %s: %w", path, err)
	}
	if s.Mask&unix.STATX_BTIME == 0 {
		return "", nil
	}
	return fmt.Sprintf("%d.%09d", s.Btime.Sec, s.Btime.Nsec), nil
}
