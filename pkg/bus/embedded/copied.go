package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// birthFile holds when it was made itself, as the file system says. In a copy of the folder, such as a restored
// backup, the file was made at another time than it says.
const birthFile = "birth"

// copied reports whether the folder is a copy. Where nothing tells it is none: before the first start with such a file,
// where it is empty, and on file systems that do not keep birth times.
func copied(dir string) (bool, error) {
	path := filepath.Join(dir, birthFile)
	said, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, mark(dir)
	}
	if err != nil {
		return false, err
	}
	text := strings.TrimSpace(string(said))
	if text == "" { // a start that ended in the middle, or a file system that knew no birth times then
		return false, mark(dir)
	}
	is, err := birth(path)
	return err == nil && is != "" && text != is, err
}

// mark writes the file anew. It is made under another name, which does not change when it was made, and is there whole
// or not at all.
func mark(dir string) error {
	path := filepath.Join(dir, birthFile)
	unfinished := path + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	born, err := birth(unfinished)
	if err == nil {
		_, err = fmt.Fprintln(f, born)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}

// Copied reports whether the folder was copied since the last start on it: a restored backup, or a move. What was
// done after the copy was made is not in it.
func (s *Server) Copied() bool { return s.copied }

// TakeOver notes that what follows from [Server.Copied] is under way, so that the next start does not say so again.
func (s *Server) TakeOver() error { return mark(s.settings.Dir) }
