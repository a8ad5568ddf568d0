package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
)

const (
	// followPeriod is how often an attached command looks.
	followPeriod = 500 * time.Millisecond
	// linePeriod is how often it prints a line where no terminal is.
	linePeriod = 10 * time.Second
	barWidth   = 30
)

// bar shows progress on stderr: one line that is written over in a terminal, a line now and then elsewhere.
type bar struct {
	w        io.Writer
	terminal bool
	label    string
	unit     string
	began    time.Time
	said     time.Time
	shown    bool
}

func (a *app) newBar(label, unit string) *bar {
	b := &bar{w: a.stderr, label: label, unit: unit, began: time.Now()}
	b.said = b.began
	if f, ok := a.stderr.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

// show prints where it is, seldom enough to be called often.
func (b *bar) show(done, total uint64, more string) {
	now := time.Now()
	period := linePeriod
	if b.terminal {
		period = followPeriod / 2
	}
	if now.Sub(b.said) < period || total == 0 {
		return
	}
	b.said, b.shown = now, true
	share := float64(done) / float64(total)
	text := fmt.Sprintf("%s %3.0f %%  %d of %d %s%s", b.label, 100*share, done, total, b.unit, more)
	if !b.terminal {
		fmt.Fprintln(b.w, text)
		return
	}
	full := min(barWidth, int(share*barWidth))
	fmt.Fprintf(b.w, "\r\033[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), text)
}

// end leaves the line.
func (b *bar) end() {
	if b.terminal && b.shown {
		fmt.Fprint(b.w, "\r\033[K")
	}
}

// attach follows the jobs, one after the other, until all have ended.
func (a *app) attach(ctx context.Context, b *bus.Bus, plan []planned) error {
	var errs []error
	for _, p := range plan {
		err := a.follow(ctx, b, *p.found)
		if ctx.Err() != nil {
			ids := make([]string, len(plan))
			for i, p := range plan {
				ids[i] = p.id
			}
			fmt.Fprintf(a.stderr, "collector: the senders go on without this command: `collector replay status` shows how far they are, `collector replay cancel` ends %s\n", strings.Join(ids, ", "))
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (a *app) follow(ctx context.Context, b *bus.Bus, e replay.Entry) error {
	if e.Result != nil {
		fmt.Fprintf(a.stdout, "%s; --again starts anew\n", ended(e))
		return nil
	}
	selection, err := replay.LoadSelection(ctx, b, &e.Job)
	if err != nil {
		return err
	}
	bar := a.newBar(fmt.Sprintf("job %s to %s", e.ID, e.Output), "confirmed")
	defer bar.end()
	speed, lonely := speedometer{}, time.Now()
	for {
		now, err := replay.Read(ctx, b, e.ID)
		if err != nil {
			return err
		}
		if now.Result != nil {
			bar.end()
			fmt.Fprintln(a.stdout, ended(now))
			return incomplete(now)
		}
		p, err := replay.ReadProgress(ctx, b, &e.Job, &selection)
		if err != nil {
			return err
		}
		if p.Senders > 0 {
			lonely = time.Time{}
		} else if !lonely.IsZero() && time.Since(lonely) > linePeriod {
			lonely = time.Time{}
			fmt.Fprintf(a.stderr, "collector: no sender of output %s has taken the job up yet; it begins as soon as one runs\n", e.Output)
		}
		bar.show(p.Settled, e.Selected, fmt.Sprintf(", %.0f alerts/s, possibly resent %d", speed.read(p.Settled), p.Resent))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPeriod):
		}
	}
}

// ended is the line about a job that has ended.
func ended(e replay.Entry) string {
	text := fmt.Sprintf("job %s to %s: %s at %s, confirmed %d of %d, possibly resent %d", e.ID, e.Output, e.State, moment(e.Ended.Truncate(time.Second)), e.Result.Confirmed, e.Selected, e.Result.Resent)
	if e.Result.Dead > 0 {
		text += fmt.Sprintf(", dead letters %d", e.Result.Dead)
	}
	if e.Result.Missing > 0 {
		text += fmt.Sprintf(", no longer in the stream %d", e.Result.Missing)
	}
	return text
}

// incomplete is the error of a job that ended without sending everything.
func incomplete(e replay.Entry) error {
	if e.State == proto.JobCancelled {
		return fmt.Errorf("job %s was cancelled", e.ID)
	}
	if e.Result.Dead+e.Result.Missing > 0 {
		return fmt.Errorf("job %s has not sent everything", e.ID)
	}
	return nil
}

// speedometer gives the rate over the last seconds.
type speedometer struct {
	at   time.Time
	n    uint64
	rate float64
}

func (s *speedometer) read(n uint64) float64 {
	now := time.Now()
	switch since := now.Sub(s.at); {
	case s.at.IsZero():
		s.at, s.n = now, n
	case since >= 3*time.Second:
		s.rate = float64(n-min(n, s.n)) / since.Seconds()
		s.at, s.n = now, n
	}
	return s.rate
}

// JobStatus is one job as `replay status --json` prints it. Its JSON names are stable.
type JobStatus struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"` // replay, or dead: letters sent again
	Output    string    `json:"output"`
	State     string    `json:"state"` // preparing, running, done or cancelled
	By        string    `json:"by,omitempty"`
	From      time.Time `json:"from,omitzero"`
	To        time.Time `json:"to,omitzero"`
	Where     []string  `json:"where,omitempty"`
	Total     uint64    `json:"total"`
	Bytes     uint64    `json:"bytes"`
	Confirmed uint64    `json:"confirmed"` // settled in another way included while it runs
	// Unconfirmed are on their way.
	Unconfirmed uint64 `json:"unconfirmed"`
	Resent      uint64 `json:"resent"`
	Dead        uint64 `json:"dead"`
	Missing     uint64 `json:"missing"`
	Limit       int    `json:"rate_limit"` // alerts/s; 0: none
	// Rate is the mean since the start, in alerts/s.
	Rate    float64    `json:"rate"`
	Created time.Time  `json:"created"`
	Ended   *time.Time `json:"ended"`
}

func jobStatus(e replay.Entry, p replay.Progress, now time.Time) JobStatus {
	s := JobStatus{
		ID: e.ID, Kind: e.Kind, Output: e.Output, State: e.State, By: e.By, From: e.From, To: e.To, Where: e.Where, Total: e.Selected, Bytes: e.Bytes,
		Confirmed: p.Settled, Unconfirmed: p.Unconfirmed, Resent: p.Resent, Dead: p.Dead, Limit: e.Rate, Created: e.Created,
	}
	if e.Result != nil {
		s.Confirmed, s.Missing = e.Result.Confirmed, e.Result.Missing
		s.Ended, now = &e.Ended, e.Ended
	}
	if took := now.Sub(e.Created).Seconds(); took > 0 {
		s.Rate = float64(s.Confirmed) / took
	}
	return s
}

func (a *app) replayStatus(ctx context.Context, asJSON bool) error {
	_, b, end, err := a.jobBus(ctx)
	if err != nil {
		return err
	}
	defer end()
	jobs, unreadable := replay.Jobs(ctx, b)
	shown := []JobStatus{}
	for _, e := range jobs {
		var p replay.Progress
		if e.State != proto.JobPreparing {
			if p, err = replay.ReadProgress(ctx, b, &e.Job, nil); err != nil {
				unreadable = errors.Join(unreadable, err)
			}
		}
		shown = append(shown, jobStatus(e, p, time.Now()))
	}
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			Time time.Time   `json:"time"`
			Jobs []JobStatus `json:"jobs"`
		}{time.Now().UTC(), shown})
	} else {
		err = a.printJobs(shown)
	}
	return errors.Join(err, unreadable)
}

func (a *app) printJobs(jobs []JobStatus) error {
	if len(jobs) == 0 {
		fmt.Fprintln(a.stdout, "no jobs")
		return nil
	}
	t := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	for _, j := range jobs {
		what := "dead letters"
		if j.Kind == proto.JobReplay {
			what = fmt.Sprintf("%s %s to %s", j.By, moment(j.From), moment(j.To))
			if len(j.Where) > 0 {
				what += " where " + strings.Join(j.Where, ", ")
			}
		}
		figures := fmt.Sprintf("confirmed %d of %d, possibly resent %d, %.0f alerts/s", j.Confirmed, j.Total, j.Resent, j.Rate)
		if j.Limit > 0 {
			figures += fmt.Sprintf(" (at most %d)", j.Limit)
		}
		if j.Dead+j.Missing > 0 {
			figures += fmt.Sprintf(", dead letters %d, no longer in the stream %d", j.Dead, j.Missing)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", j.ID, j.Output, j.State, figures, what)
	}
	return t.Flush()
}
