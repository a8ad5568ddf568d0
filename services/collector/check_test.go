package collector

import (
	"errors"
	"testing"
)

func TestCheckErrorSteersNoTerminal(t *testing.T) {
	if got := (&checkError{errors.New("a\x1b[2Jb")}).Error(); got != "a [2Jb" {
		t.Errorf("%q", got)
	}
}
