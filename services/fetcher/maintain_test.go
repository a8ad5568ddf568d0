package fetcher

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
)

// A task that fails for hours is told of once, although the others succeed meanwhile, and once when it succeeds again.
func TestAFailingTaskIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.onPage = func(q resourcegraph.Query, _ int) error {
			if strings.Contains(q.Text, "isnull(") {
				return fault.API(498, "Error during API call to x")
			}
			return nil
		}
		r := w.start(t, nil)
		w.settle(5 * time.Hour)
		w.mend()
		w.settle(5 * time.Minute)
		if n := r.logs.count("ERROR rows without a start time failed"); n != 1 || r.logs.count("succeeds again") != 1 {
			t.Errorf("told of %d times:\n%s", n, strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
	})
}
