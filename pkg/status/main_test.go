package status

import (
	"testing"

	"defenderiot/pkg/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Leaks(m) }
