package fetcher

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"defenderiot/pkg/obfuscation"
)

// Every pull says the known lines in their order, and nothing else looks like a pull: not the lookback, the sweep, the
// rows without a start or the windows of a back-fill.
func TestEveryPullSaysItsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.putMany(1500, time.Now().Add(-20*time.Hour), time.Second)
		w.put("/far", time.Now().Add(-70*24*time.Hour))
		w.put("/null", time.Time{})
		start := time.Now().Add(-80 * 24 * time.Hour)
		r := w.start(t, func(o *Options) { o.Service.Start = start })
		w.settle(26 * time.Hour)
		r.halt(t)
		pull := regexp.MustCompile(`^INFO (Pull Started|Fetching all|No skip_token|\(Partial\) Statistics|Statistics|The data is up to date!|Data collection completed)`)
		one := []string{"Pull Started", "Fetching all", "No skip_token", "(Partial) Statistics", "Statistics", "The data is up to date!", "Data collection completed"}
		var lines []string
		for _, line := range r.logs.all() {
			if m := pull.FindStringSubmatch(line); m != nil {
				lines = append(lines, m[1])
			}
		}
		pulls := 0
		for len(lines) >= len(one) {
			if got := strings.Join(lines[:len(one)], "; "); got != strings.Join(one, "; ") {
				t.Fatalf("pull %d says %s", pulls, got)
			}
			lines, pulls = lines[len(one):], pulls+1
		}
		if pulls != 26*60 && pulls != 26*60+1 || len(lines) > 0 {
			t.Errorf("%d pulls in 26 hours, and then %v", pulls, lines)
		}
		for _, line := range []string{"The window from 1999-", "INFO The daily sweep has read "} {
			if r.logs.count(line) == 0 {
				t.Errorf("no line %q", line)
			}
		}
	})
}

// Pages are told one by one, and the total at the end.
func TestStatisticsOfSeveralPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.putMany(2500, time.Now().Add(-20*time.Hour), time.Second)
		r := w.start(t, nil)
		w.settle(30 * time.Second)
		r.halt(t)
		counts := regexp.MustCompile(`^INFO (\(Partial\) )?Statistics for this pull cycle \(@devo_pulling_id=\d{12}\):Number of requests made: (\d); Number of events received: (\d+); Number of duplicated events filtered out: 0; Number of events generated and sent: (\d+); Average of events per second: \d+\.\d{3}\.$`)
		var got []string
		for _, line := range r.logs.all() {
			if m := counts.FindStringSubmatch(line); m != nil {
				got = append(got, m[1]+m[4])
			}
		}
		if text := strings.Join(got, ", "); text != "(Partial) 1000, (Partial) 2000, (Partial) 2500, 2500" {
			t.Errorf("sent: %s\n%s", text, strings.Join(r.logs.all(), "\n"))
		}
	})
}

// slow is a masker that takes its time and masks nothing.
type slow time.Duration

func (s slow) Append(dst, row []byte) ([]byte, error) {
	time.Sleep(time.Duration(s))
	return append(dst, row...), nil
}
func (slow) Reaches(...string) bool      { return false }
func (slow) Rows() uint64                { return 0 }
func (slow) Counts() []obfuscation.Count { return nil }

func TestALongPullIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put("/a", time.Now().Add(-time.Hour))
		r := w.start(t, func(o *Options) {
			o.Service.Masker = slow(90 * time.Second)
		})
		w.settle(95 * time.Second)
		var after []string
		for i, line := range r.logs.all() {
			if strings.HasPrefix(line, "INFO Elapsed time: 90.0") && strings.HasSuffix(line, " seconds. Last retrieval took too much time, no wait will be applied in this loop") {
				after = r.logs.all()[i+1:]
			}
		}
		if len(after) == 0 || after[0] != "INFO Pull Started" {
			t.Errorf("log:\n%s", strings.Join(r.logs.all(), "\n"))
		}
		r.halt(t)
		if r.logs.count("WARN Retrieving loop has been interrupted due to a controlled stopping action has been activated") != 1 {
			t.Error("the stop was not told")
		}
	})
}
