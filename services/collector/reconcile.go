package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
	"defenderiot/pkg/reconcile"
	"defenderiot/proto"
	"defenderiot/services/fetcher"
)

// namedAlerts is how many missing alerts the table names; --json names more.
const namedAlerts = 20

// reconciling is what `reconcile` is asked for.
type reconciling struct {
	from, to, input string
	repair, asJSON  bool
}

// Reconciled is what `reconcile --json` prints. Its JSON names are stable.
type Reconciled struct {
	Source string    `json:"source"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	*reconcile.Report
	// Unusable rows have no id: nothing can be said of them here; the fetcher makes dead letters of them.
	Unusable int64 `json:"rows_without_id"`
	// Short windows were answered by Azure with fewer rows than it counts.
	Short    int   `json:"short_windows"`
	Requests int64 `json:"requests"`
	// Released claims and Position are what --repair has done.
	Released int        `json:"released_claims"`
	Position *time.Time `json:"position_moved_to,omitempty"`
}

func (a *app) reconcileCommand() *cobra.Command {
	var r reconciling
	cmd := &cobra.Command{
		Use: "reconcile --from TIME --to TIME", Short: "compares what Azure has with what was delivered, and names what is missing", Args: cobra.NoArgs,
		Example: "  collector reconcile --from 2026-11-20 --to 2026-11-21             the alerts that start on that day\n" +
			"  collector reconcile --from 2026-11-20 --to 2026-11-21 --repair    and has what is missing fetched",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.reconcile(cmd.Context(), r) },
	}
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "begin of the window of the alerts' start times; UTC without an offset")
	f.StringVar(&r.to, "to", "", "end of the window; what starts exactly there is not in it")
	f.StringVar(&r.input, "input", "", "the input, where several are enabled")
	f.BoolVar(&r.repair, "repair", false, "have what is missing fetched and delivered; nothing that was delivered is sent again")
	f.BoolVar(&r.asJSON, "json", false, "print JSON")
	_, _ = cmd.MarkFlagRequired("from"), cmd.MarkFlagRequired("to")
	return cmd
}

func (r reconciling) window() (w proto.Window, err error) {
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
	if !w.From.Before(w.To) {
		return w, fmt.Errorf("--from %s is not before --to %s", moment(w.From), moment(w.To))
	}
	return w, nil
}

func (a *app) reconcile(ctx context.Context, r reconciling) error {
	w, err := r.window()
	if err != nil {
		return err
	}
	c, b, end, err := a.jobBus(ctx)
	if err != nil {
		return err
	}
	defer end()
	source, err := one(c, r.input)
	if err != nil {
		return err
	}
	p, err := open(ctx, b, false, func() {})
	if err != nil {
		return err
	}
	before, err := p.read(ctx, source)
	switch {
	case err != nil:
		return err
	case before.record == nil:
		return noRecord(source)
	case before.record.Claiming != nil:
		return fault.WithHint(errors.New("what was sent before is still being claimed"), "wait until `collector checkpoint show` says that the phase is fetching")
	}
	record := before.record
	if w.From.Before(record.Floor) {
		fmt.Fprintf(a.stderr, "collector: nothing that starts before %s is fetched (start_time_in_utc): the window begins there\n", moment(record.Floor))
		if w.From = record.Floor; !w.From.Before(w.To) {
			return errors.New("nothing of the window is fetched at all")
		}
	}
	comparison, survey, err := a.survey(ctx, c, b, source, record, w)
	if err != nil {
		return err
	}
	report, err := comparison.Settle(ctx, record.LastEventTime, keys(c.Outputs))
	if err != nil {
		return err
	}
	out := &Reconciled{
		Source: source.String(), From: w.From, To: w.To, Report: report,
		Unusable: survey.Unusable, Short: survey.Short, Requests: survey.Requests,
	}
	if r.repair && report.Missing > 0 {
		if err := a.repair(ctx, p, source, comparison, out); err != nil {
			return err
		}
	}
	if err := a.printReconciled(out, r.asJSON); err != nil {
		return err
	}
	if report.Missing > 0 {
		return fmt.Errorf("%d %w", report.Missing, process.ErrMissing)
	}
	return nil
}

// survey reads Azure and compares page by page.
func (a *app) survey(ctx context.Context, c *config.Config, b *bus.Bus, source proto.Source, record *proto.Checkpoint, w proto.Window) (*reconcile.Comparison, fetcher.Surveyed, error) {
	comparison, err := reconcile.New(ctx, b, source, record.Generation, record.Replaced)
	if err != nil {
		return nil, fetcher.Surveyed{}, err
	}
	bar := a.newBar("reading Azure", "seconds of the window")
	defer bar.end()
	rows := 0
	var page []reconcile.Alert
	visit := func(ctx context.Context, sightings []fetcher.Sighting) error {
		rows += len(sightings)
		for part := range slices.Chunk(sightings, reconcile.Page) {
			page = page[:0]
			for _, s := range part {
				// Resource Graph compares more coarsely than the window's ends are given.
				if !s.Start.Before(w.From) && s.Start.Before(w.To) {
					page = append(page, reconcile.Alert{Hash: s.Hash, ID: s.ID, Start: s.Start})
				}
			}
			if err := comparison.Add(ctx, page); err != nil {
				return err
			}
		}
		return nil
	}
	whole := uint64(w.To.Sub(w.From).Seconds())
	report := func(upTo time.Time) {
		bar.show(min(whole, uint64(upTo.Sub(w.From).Seconds())), whole, fmt.Sprintf(", %d rows", rows))
	}
	survey, err := fetcher.Survey(ctx, c, fetcher.Runtime{Bus: b, Instance: process.NewInstance()}, source, w, visit, report)
	return comparison, survey, err
}

// repair has the fetcher read from the first missing alert on. What is claimed is not sent again, so only the claims
// of what is lost are given up, before that.
func (a *app) repair(ctx context.Context, p *positions, source proto.Source, comparison *reconcile.Comparison, out *Reconciled) (err error) {
	if out.Released, err = comparison.Release(ctx, out.Report); err != nil {
		return err
	}
	next := func(b base) (*proto.Checkpoint, error) {
		if b.record == nil {
			return nil, noRecord(source)
		}
		to := out.Earliest()
		if to.After(b.record.LastEventTime) {
			to = b.record.LastEventTime
		}
		return resetTo(source, b, later(to, b.record.Floor), false, time.Now().UTC())
	}
	_, after, _, err := p.change(ctx, source, next)
	if err == nil {
		out.Position = &after.LastEventTime
	}
	return err
}

func (a *app) printReconciled(r *Reconciled, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "%s\talerts that start from %s to %s\n", r.Source, moment(r.From), moment(r.To))
	fmt.Fprintf(w, "in Azure\t%d\n", r.Azure)
	fmt.Fprintf(w, "in UNIQUE\t%d\n", r.Unique)
	for _, o := range r.Outputs {
		fmt.Fprintf(w, "  output %s\tconfirmed %d, waiting %d, dead letters %d", o.Name, o.Confirmed, o.Waiting, o.Dead)
		if o.Before > 0 {
			fmt.Fprintf(w, ", stored before the output began %d", o.Before)
		}
		fmt.Fprintln(w)
	}
	for _, line := range []struct {
		what string
		n    uint64
	}{
		{"waiting for dedup", r.Waiting},
		{"not fetched yet", r.Unfetched},
		{"sent before, not by this generation", r.Silent},
		{"claimed, delivery no longer known", r.Unknown},
		{"dead letters before UNIQUE", r.Dead},
		{"rows without an id", uint64(r.Unusable)},
		{"windows that Azure answered short", uint64(r.Short)},
	} {
		if line.n > 0 {
			fmt.Fprintf(w, "%s\t%d\n", line.what, line.n)
		}
	}
	fmt.Fprintf(w, "missing\t%d\n", r.Missing)
	for _, m := range r.Named[:min(len(r.Named), namedAlerts)] {
		why := "not fetched"
		if m.Lost {
			why = "claimed, and nowhere"
		}
		name := m.ID
		if name == "" {
			name = "hash " + m.Hash
		}
		fmt.Fprintf(w, "  %s\t%s (%s)\n", moment(m.Start), name, why)
	}
	if more := r.Missing - uint64(min(len(r.Named), namedAlerts)); more > 0 {
		fmt.Fprintf(w, "  and %d more; --json names them\n", more)
	}
	fmt.Fprintf(w, "requests to Azure\t%d\n", r.Requests)
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case r.Missing == 0:
		fmt.Fprintln(a.stdout, "nothing is missing")
	case r.Position != nil:
		fmt.Fprintf(a.stdout, "ordered: %d claims released, the fetcher reads again from %s on; `collector reconcile` with the same window shows the result\n", r.Released, moment(*r.Position))
	}
	return nil
}
