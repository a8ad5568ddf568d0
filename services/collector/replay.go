package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/replay"
	"defenderiot/proto"
)

// resending is what `replay` is asked for.
type resending struct {
	from, to, by, output string
	where                []string
	rate                 int
	dryRun, again        bool
}

func (a *app) replayCommand() *cobra.Command {
	var r resending
	cmd := &cobra.Command{
		Use: "replay --from TIME --to TIME", Short: "sends a window of delivered alerts again; asks nothing of Azure", Args: cobra.NoArgs,
		Example: "  collector replay --from 2026-11-20T00:00:00Z --to 2026-11-21T00:00:00Z --dry-run      what would be sent\n" +
			"  collector replay --from 2026-11-20 --to 2026-11-21 --output devo_1 --rate 500        to one output, at most 500 alerts/s\n" +
			"  collector replay --from 2026-11-20 --to 2026-11-21 --where properties.severity=High  only these\n" +
			"  collector replay status                                                              all jobs and where they stand",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.replay(cmd.Context(), r) },
	}
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "begin of the window, for example 2026-11-20T00:00:00Z; UTC without an offset")
	f.StringVar(&r.to, "to", "", "end of the window; what lies exactly there is not in it")
	f.StringVar(&r.by, "by", proto.JobByStart, "which time of an alert counts: start (when it started) or stored (when the collector stored it)")
	f.StringVar(&r.output, "output", "", "the output (default: all outputs, a job each)")
	f.StringArrayVar(&r.where, "where", nil, "field=value that an alert must have, for example properties.severity=High; may be repeated, then all must hold")
	f.IntVar(&r.rate, "rate", 0, "at most so many alerts a second, over all senders (default: as fast as the output takes them)")
	f.BoolVar(&r.dryRun, "dry-run", false, "only count and print what would be sent")
	f.BoolVar(&r.again, "again", false, "start anew although the same was done or cancelled before")
	_, _ = cmd.MarkFlagRequired("from"), cmd.MarkFlagRequired("to")

	var asJSON bool
	status := &cobra.Command{
		Use: "status", Short: "all jobs and where they stand", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.replayStatus(cmd.Context(), asJSON) },
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cancel := &cobra.Command{
		Use: "cancel [JOB]", Short: "ends a job; without a name the only one that runs", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.replayCancel(cmd.Context(), strings.Join(args, ""))
		},
	}
	cmd.AddCommand(status, cancel)
	return cmd
}

// jobBus connects as a command of jobs does, and removes what ended jobs have left behind.
func (a *app) jobBus(ctx context.Context) (*config.Config, *bus.Bus, func(), error) {
	c, _, err := a.load()
	if err != nil {
		return nil, nil, nil, err
	}
	b, logger, err := a.connect(c, slog.LevelError)
	if err != nil {
		return nil, nil, nil, err
	}
	end := func() { _ = b.Close(context.WithoutCancel(ctx)) }
	if err := answers(ctx, b); err != nil {
		end()
		return nil, nil, nil, err
	}
	sweep, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	if err := replay.Sweep(sweep, b); err != nil {
		logger.Warn("what ended jobs have left behind was not removed", "error", err)
	}
	return c, b, end, nil
}

// window reads the flags.
func (r resending) window() (replay.Window, error) {
	w := replay.Window{By: r.by}
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"--from", r.from, &w.From}, {"--to", r.to, &w.To}} {
		var instant config.StartTime
		if err := instant.UnmarshalText([]byte(t.text)); err != nil {
			return w, fault.WithHint(fmt.Errorf("%s %.60q is not %w", t.flag, t.text, err), timeHint)
		}
		*t.at = instant.Time
	}
	switch {
	case !w.From.Before(w.To):
		return w, fmt.Errorf("--from %s is not before --to %s", moment(w.From), moment(w.To))
	case r.by != proto.JobByStart && r.by != proto.JobByStored:
		return w, fmt.Errorf("--by %.60q is none of: %s, %s", r.by, proto.JobByStart, proto.JobByStored)
	case r.rate < 0 || r.rate > replay.MaxRate:
		return w, fmt.Errorf("--rate %d is not between 0 and %d", r.rate, replay.MaxRate)
	}
	for _, text := range r.where {
		c, err := replay.ParseCondition(text)
		if err != nil {
			return w, fmt.Errorf("--where %w", err)
		}
		w.Where = append(w.Where, c)
	}
	return w, nil
}

// targets are the outputs that the command is for.
func (r resending) targets(c *config.Config) ([]string, error) {
	names := keys(c.Outputs)
	if r.output == "" {
		return names, nil
	}
	if !slices.Contains(names, r.output) {
		return nil, fault.WithHint(fmt.Errorf("no output %s is configured", r.output), fmt.Sprintf("name one of the outputs with --output: %v", names))
	}
	return []string{r.output}, nil
}

// base names the job to an output: by what was asked, however it was written.
func (r resending) base(output string, w replay.Window) string {
	words := []string{moment(w.From), moment(w.To), w.By}
	words = append(words, slices.Sorted(slices.Values(r.where))...)
	return replay.Base(proto.JobReplay, output, words...)
}

// planned is a job that the command starts or has found.
type planned struct {
	output string
	id     string
	found  *replay.Entry // nil: to be started
}

func (a *app) replay(ctx context.Context, r resending) error {
	w, err := r.window()
	if err != nil {
		return err
	}
	c, b, end, err := a.jobBus(ctx)
	if err != nil {
		return err
	}
	defer end()
	outputs, err := r.targets(c)
	if err != nil {
		return err
	}
	jobs, err := replay.Jobs(ctx, b)
	if err != nil {
		return err
	}
	var plan []planned
	missing := 0
	for _, output := range outputs {
		p := r.plan(jobs, output, w)
		switch {
		case p.found == nil:
			missing++
		case p.found.State == proto.JobRunning && p.found.Rate != r.rate:
			fmt.Fprintf(a.stderr, "collector: job %s to %s runs already, with --rate %d, and goes on so; `collector replay cancel %s` ends it\n", p.found.ID, output, p.found.Rate, p.found.ID)
		}
		plan = append(plan, p)
	}
	if missing > 0 || r.dryRun {
		s, err := a.count(ctx, b, w)
		if err != nil {
			return err
		}
		if err := a.printSelection(r, w, s, plan); err != nil || r.dryRun || s.Sequences.Len() == 0 {
			return err
		}
		for i, p := range plan {
			if p.found != nil {
				continue
			}
			e, err := replay.Start(ctx, b, proto.Job{
				ID: p.id, Kind: proto.JobReplay, Output: p.output, Stream: proto.StreamUnique, Rate: r.rate, By: w.By, From: w.From, To: w.To, Where: r.where,
			}, s)
			if err != nil {
				return err
			}
			plan[i].found = &e
			fmt.Fprintf(a.stdout, "job %s to %s started\n", e.ID, e.Output)
		}
	}
	return a.attach(ctx, b, plan)
}

// plan finds the job of the same arguments, or names the one to be started.
func (r resending) plan(jobs []replay.Entry, output string, w replay.Window) planned {
	base := r.base(output, w)
	latest, n := replay.Latest(jobs, base)
	switch {
	case latest == nil:
		return planned{output: output, id: replay.RunID(base, 1)}
	case latest.State == proto.JobPreparing:
		return planned{output: output, id: latest.ID}
	case latest.State != proto.JobRunning && r.again:
		return planned{output: output, id: replay.RunID(base, n+1)}
	}
	return planned{output: output, id: latest.ID, found: latest}
}

// count scans UNIQUE and says what lies beyond it.
func (a *app) count(ctx context.Context, b *bus.Bus, w replay.Window) (replay.Selection, error) {
	bar := a.newBar("counting", "messages read")
	s, err := replay.Scan(ctx, b, w, func(done, total uint64) { bar.show(done, total, "") })
	bar.end()
	if err != nil {
		return s, err
	}
	stream, err := b.Stream(ctx, proto.StreamUnique)
	if err != nil {
		return s, fmt.Errorf("stream UNIQUE: %w", err)
	}
	state := stream.CachedInfo().State
	// Alerts may be stored long after their start, so only what was stored before the oldest is surely gone.
	if purged := state.FirstSeq > 1; purged && (state.Msgs == 0 || w.From.Before(state.FirstTime)) {
		oldest := "is empty"
		if state.Msgs > 0 {
			oldest = fmt.Sprintf("begins at sequence %d, stored %s", state.FirstSeq, moment(state.FirstTime))
		}
		beyond := fault.WithHint(fmt.Errorf("the window begins at %s, but UNIQUE %s; what it held before that is no longer there", moment(w.From), oldest),
			fmt.Sprintf("`collector checkpoint reset --to %s --resend` asks Azure for it again, which keeps 90 days; bus.retention.unique is how long UNIQUE keeps alerts", moment(w.From)))
		if s.Sequences.Len() == 0 {
			return s, beyond
		}
		fmt.Fprintf(a.stderr, "collector: warning: %v\ncollector: hint: %s\n", beyond, fault.Hint(beyond))
	}
	return s, nil
}

func (a *app) printSelection(r resending, w replay.Window, s replay.Selection, plan []planned) error {
	t := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	by := "started"
	if w.By == proto.JobByStored {
		by = "stored"
	}
	fmt.Fprintf(t, "window\t%s from %s until before %s\n", by, moment(w.From), moment(w.To))
	for _, text := range r.where {
		fmt.Fprintf(t, "where\t%s\n", text)
	}
	n := s.Sequences.Len()
	fmt.Fprintf(t, "alerts\t%d, %s each output\n", n, size(s.Bytes))
	if ranges := s.Sequences.Ranges(); n > 0 {
		fmt.Fprintf(t, "in UNIQUE\tsequences %d to %d\n", ranges[0].First, ranges[len(ranges)-1].Last)
	}
	for _, left := range []struct {
		n    uint64
		what string
	}{
		{s.Older, "older copies, of earlier generations: only the newest of an alert is sent"},
		{s.WithoutStart, "alerts without a start time are in no window of starts; --by stored reaches them"},
		{s.Unreadable, "messages that make no alert: they are in the dead letters"},
	} {
		if left.n > 0 {
			fmt.Fprintf(t, "left out\t%d %s\n", left.n, left.what)
		}
	}
	speed := "as fast as the output takes them"
	if r.rate > 0 {
		speed = fmt.Sprintf("at most %d alerts/s: at least %v", r.rate, (time.Duration(float64(n)/float64(r.rate)*1000) * time.Millisecond).Round(time.Second))
	}
	fmt.Fprintf(t, "time\t%s\n", speed)
	for _, p := range plan {
		job := "job " + p.id
		switch {
		case p.found != nil:
			job += ", which is " + p.found.State
		case r.dryRun:
			job += ", not started: --dry-run"
		case n == 0:
			job = "nothing to send"
		}
		fmt.Fprintf(t, "output\t%s: %s\n", p.output, job)
	}
	return t.Flush()
}

// size prints bytes for people.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// replayCancel ends one job.
func (a *app) replayCancel(ctx context.Context, id string) error {
	_, b, end, err := a.jobBus(ctx)
	if err != nil {
		return err
	}
	defer end()
	if id == "" {
		jobs, err := replay.Jobs(ctx, b)
		if err != nil {
			return err
		}
		var running []string
		for _, j := range jobs {
			if j.State == proto.JobRunning || j.State == proto.JobPreparing {
				running = append(running, j.ID)
			}
		}
		if len(running) != 1 {
			hint := "`collector replay status` shows all jobs"
			if len(running) > 1 {
				hint = fmt.Sprintf("name one of them: %v", running)
			}
			return fault.WithHint(fmt.Errorf("%d jobs are running", len(running)), hint)
		}
		id = running[0]
	}
	before, err := replay.Read(ctx, b, id)
	if errors.Is(err, replay.ErrNoJob) {
		return fault.WithHint(err, "`collector replay status` shows all jobs")
	}
	if err != nil {
		return err
	}
	e, err := replay.Cancel(ctx, b, id)
	switch {
	case err != nil:
		return err
	case e.State == proto.JobDone || before.State == e.State:
		fmt.Fprintf(a.stdout, "job %s to %s was %s before, at %s\n", e.ID, e.Output, e.State, moment(e.Ended))
	default:
		fmt.Fprintf(a.stdout, "job %s to %s is cancelled: %d of %d alerts were confirmed by then; what is on its way may still arrive\n", e.ID, e.Output, e.Result.Confirmed, e.Selected)
	}
	return nil
}
