package embedded

import "golang.org/x/sys/unix"

// free is how many bytes the disk of dir has left for this process's user; known is false where the system does not say.
func free(dir string) (bytes uint64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}
