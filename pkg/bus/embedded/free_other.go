//go:build !linux

package embedded

// free is not known on this system: only a write that fails says that the disk is full.
func free(string) (bytes uint64, known bool) { return 0, false }
