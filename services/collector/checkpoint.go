package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"defenderiot/pkg/fault"
	"defenderiot/proto"
	"defenderiot/services/fetcher"
)

func (a *app) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "shows or changes the fetch position", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	show := &cobra.Command{
		Use: "show", Short: "prints the record of each source", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showPositions(cmd.Context(), asJSON) },
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")

	var r reset
	resetCommand := &cobra.Command{
		Use: "reset --to TIME", Short: "reads again from a time on and sends what is missing", Args: cobra.NoArgs,
		Example: "  collector checkpoint reset --to 2026-11-20T00:00:00Z             what is missing since then is sent\n" +
			"  collector checkpoint reset --to 2026-11-20T00:00:00Z --resend    everything since then is sent again",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.reset(cmd.Context(), r) },
	}
	resetCommand.Flags().StringVar(&r.to, "to", "", "the time, for example 2026-11-20T00:00:00Z; UTC without an offset")
	_ = resetCommand.MarkFlagRequired("to")
	resetCommand.Flags().BoolVar(&r.resend, "resend", false, "send everything from there again, in a new generation")

	var i importing
	importCommand := &cobra.Command{
		Use: "import FILE", Short: "goes on where the known collector's state file ends", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i.file = args[0]
			return a.importState(cmd.Context(), i)
		},
	}
	importCommand.Flags().BoolVar(&i.resend, "resend", false, "replace a record that is there: what starts at or after the file's last event is sent, again if need be, in a new generation")

	for _, c := range []struct {
		cmd    *cobra.Command
		input  *string
		dryRun *bool
	}{{resetCommand, &r.input, &r.dryRun}, {importCommand, &i.input, &i.dryRun}} {
		c.cmd.Flags().StringVar(c.input, "input", "", "the input, where several are enabled")
		c.cmd.Flags().BoolVar(c.dryRun, "dry-run", false, "only print what would happen")
	}
	cmd.AddCommand(show, resetCommand, importCommand)
	return cmd
}

// Position is a source's record as `checkpoint show --json` prints it. Its JSON names are stable.
type Position struct {
	// Record is the record; null where there is none or it is not readable.
	Record *proto.Checkpoint `json:"record"`
	// Raw is a record that is not readable, at most rawShown bytes of it.
	Raw string `json:"unreadable_record,omitempty"`
	// Error says why.
	Error    string     `json:"error,omitempty"`
	Revision uint64     `json:"revision"`
	Written  *time.Time `json:"written"`
	// Age is how far the position lies back, in seconds.
	Age float64 `json:"age_in_seconds"`
	// Phase is none, claiming or fetching.
	Phase string `json:"phase"`
}

const rawShown = 2000

func (a *app) showPositions(ctx context.Context, asJSON bool) error {
	c, _, err := a.load()
	if err != nil {
		return err
	}
	p, err := a.positions(ctx, c, false)
	if err != nil {
		return err
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	shown, now := map[string]*Position{}, time.Now().UTC()
	var unreadable error
	for _, source := range fetcher.Sources(c) {
		record, entry, err := fetcher.ReadRecord(ctx, p.kv, source)
		one := &Position{Record: record, Phase: "fetching"}
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			one.Phase = "none"
		case entry == nil && err != nil:
			return err
		case err != nil:
			one.Phase, one.Error = "none", err.Error()
			one.Raw = strings.ToValidUTF8(string(entry.Value()[:min(len(entry.Value()), rawShown)]), "?")
			unreadable = errors.Join(unreadable, err)
		case record.Claiming != nil:
			one.Phase = "claiming"
		}
		if entry != nil {
			written := entry.Created().UTC()
			one.Revision, one.Written = entry.Revision(), &written
		}
		if record != nil {
			one.Age = now.Sub(record.LastEventTime).Round(time.Second).Seconds()
		}
		shown[source.String()] = one
	}
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			Time    time.Time            `json:"time"`
			Sources map[string]*Position `json:"sources"`
		}{now, shown})
	} else {
		err = a.printPositions(shown, now)
	}
	return errors.Join(err, unreadable)
}

func (a *app) printPositions(shown map[string]*Position, now time.Time) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	for i, name := range keys(shown) {
		if i > 0 {
			fmt.Fprintln(w)
		}
		one := shown[name]
		fmt.Fprintf(w, "source\t%s\n", name)
		switch {
		case one.Error != "":
			fmt.Fprintf(w, "unreadable\t%q\n", one.Raw)
		case one.Record == nil:
			fmt.Fprintf(w, "record\tnone: the next start begins at start_time_in_utc, or a day before it\n")
			continue
		default:
			printRecord(w, one.Record, now)
		}
		fmt.Fprintf(w, "revision\t%d, written %s ago\n", one.Revision, now.Sub(*one.Written).Round(time.Second))
	}
	return w.Flush()
}

func printRecord(w *tabwriter.Writer, r *proto.Checkpoint, now time.Time) {
	fmt.Fprintf(w, "@persistence_version\t%d\n", r.PersistenceVersion)
	start := "none configured"
	if r.StartTime != nil {
		start = moment(*r.StartTime)
	}
	fmt.Fprintf(w, "start_time_in_utc\t%s\n", start)
	fmt.Fprintf(w, "last_event_time_in_utc\t%s (%s ago)\n", moment(r.LastEventTime), now.Sub(r.LastEventTime).Round(time.Second))
	fmt.Fprintf(w, "last_ids\t%d\n", len(r.LastIDs))
	fmt.Fprintf(w, "skip_token\tnull\n")
	fmt.Fprintf(w, "generation\t%d\n", r.Generation)
	fmt.Fprintf(w, "floor\t%s, nothing below it is read\n", moment(r.Floor))
	phase := "fetching"
	if k := r.Claiming; k != nil {
		phase = fmt.Sprintf("claiming what was sent before %s, done up to %s", moment(k.Before), moment(k.Through))
	}
	fmt.Fprintf(w, "phase\t%s\n", phase)
	if len(r.Rescan) > 0 {
		fmt.Fprintf(w, "windows to read again\t%d\n", len(r.Rescan))
	}
}

// moment is how the commands print an instant.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// takenUp says when a stored change has an effect.
func (p *positions) takenUp(ctx context.Context, source proto.Source) string {
	if !p.alone {
		if _, err := p.kv.Get(ctx, proto.LeaseKey(source)); err == nil {
			return "the fetcher that holds the lease takes it up at its next pull"
		}
	}
	return "no fetcher is running; the next one takes it up at its start"
}

// noRecord is the error of changing what is not there.
func noRecord(source proto.Source) error {
	return fault.WithHint(fmt.Errorf("there is no record of %s yet", source), "nothing has been read: start_time_in_utc decides where the first start begins")
}
