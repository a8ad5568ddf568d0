package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// choice says which dead letters a command is for: those that meet all of it.
type choice struct {
	names                 []string // sequences in DEAD, or alert ids
	stage, output, reason string
	all                   bool
}

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "lists, shows, tries again or drops dead letters", Args: cobra.NoArgs,
		Example: "  collector dead list                                  what waits for a decision\n" +
			"  collector dead show 12                               all of one letter\n" +
			"  collector dead retry --reason 'no frame' --dry-run   what would be tried again\n" +
			"  collector dead drop 12 --yes                         give one up",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var c choice
	var asJSON, dryRun, yes bool
	var input string
	list := &cobra.Command{
		Use: "list [LETTER|ALERT]...", Short: "one line a letter",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.names, c.all = args, true
			return a.deadList(cmd.Context(), c, asJSON)
		},
	}
	show := &cobra.Command{
		Use: "show LETTER|ALERT...", Short: "everything that is known of letters", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.names = args
			return a.deadShow(cmd.Context(), c, asJSON)
		},
	}
	retry := &cobra.Command{
		Use: "retry [LETTER|ALERT]...", Short: "tries letters again, at the stage that failed",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.names = args
			return a.deadRetry(cmd.Context(), c, input, dryRun)
		},
	}
	drop := &cobra.Command{
		Use: "drop [LETTER|ALERT]...", Short: "removes letters; what they hold is not delivered",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.names = args
			return a.deadDrop(cmd.Context(), c, dryRun, yes)
		},
	}
	for _, sub := range []*cobra.Command{list, retry, drop} {
		f := sub.Flags()
		f.StringVar(&c.stage, "stage", "", "only letters of this stage: fetcher, dedup or sender")
		f.StringVar(&c.output, "output", "", "only letters of this output")
		f.StringVar(&c.reason, "reason", "", "only letters whose reason contains this text")
	}
	for _, sub := range []*cobra.Command{retry, drop} {
		sub.Flags().BoolVar(&c.all, "all", false, "all letters that the other flags leave")
		sub.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would happen")
	}
	for _, sub := range []*cobra.Command{list, show} {
		sub.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	}
	drop.Flags().BoolVar(&yes, "yes", false, "really remove them")
	retry.Flags().StringVar(&input, "input", "", "the input that letters of the fetcher are of, where several are enabled")
	cmd.AddCommand(list, show, retry, drop)
	return cmd
}

// Letter is a dead letter as `dead list --json` and `dead show --json` print it. Its JSON names are stable.
type Letter struct {
	// Letter is its sequence in DEAD, by which commands name it.
	Letter   uint64    `json:"letter"`
	Stage    string    `json:"stage"`
	Output   string    `json:"output,omitempty"`
	AlertID  string    `json:"alert_id,omitempty"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	First    time.Time `json:"first_failure"`
	Last     time.Time `json:"last_failure"`
	// Stream and Sequence are where the message was; empty for a row that never got so far.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Bytes    int    `json:"payload_bytes"`
	// Row is the alert, where the payload holds one; Payload what it holds else, in base64. Only show has them.
	Row     json.RawMessage `json:"row,omitempty"`
	Payload []byte          `json:"payload,omitempty"`

	letter *proto.DeadLetter
}

// empty: nothing is chosen, which must not mean everything.
func (c choice) empty() bool {
	return len(c.names) == 0 && c.stage == "" && c.output == "" && c.reason == "" && !c.all
}

func (c choice) check() error {
	switch {
	case c.empty():
		return fault.WithHint(errors.New("no letter is chosen"), "name letters or alerts, or use --stage, --output, --reason, or --all for all of them; `collector dead list` shows them")
	case c.stage != "" && c.stage != proto.StageFetcher && c.stage != proto.StageDedup && c.stage != proto.StageSender:
		return fmt.Errorf("--stage %.40q is none of: %s, %s, %s", c.stage, proto.StageFetcher, proto.StageDedup, proto.StageSender)
	}
	return nil
}

func (c choice) has(sequence uint64, d *proto.DeadLetter) bool {
	if c.stage != "" && d.Stage != c.stage || c.output != "" && d.Output != c.output || !strings.Contains(d.Reason, c.reason) {
		return false
	}
	if len(c.names) == 0 {
		return true
	}
	for _, name := range c.names {
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && n == sequence || d.AlertID != "" && strings.EqualFold(name, d.AlertID) {
			return true
		}
	}
	return false
}

// letters calls with for each letter that is chosen, oldest first. One that cannot be read has its error for a
// reason: it is shown, and can be dropped.
func (c choice) letters(ctx context.Context, b *bus.Bus, with func(Letter) error) error {
	for next := uint64(1); ; {
		messages, err := b.Read(ctx, proto.StreamDead, next)
		if err != nil || len(messages) == 0 {
			return err
		}
		for _, m := range messages {
			next = m.Sequence + 1
			d, err := proto.DecodeDeadLetter(m.Data)
			if err != nil {
				d = &proto.DeadLetter{Reason: "the letter itself is not readable: " + err.Error(), First: m.Time, Last: m.Time, Payload: m.Data}
			}
			if !c.has(m.Sequence, d) {
				continue
			}
			err = with(Letter{
				Letter: m.Sequence, Stage: d.Stage, Output: d.Output, AlertID: d.AlertID, Reason: d.Reason, Attempts: d.Attempts,
				First: d.First.UTC(), Last: d.Last.UTC(), Stream: d.Stream, Sequence: d.Sequence, Bytes: len(d.Payload), letter: d,
			})
			if err != nil {
				return err
			}
		}
	}
}

// deadBus connects and looks for DEAD.
func (a *app) deadBus(ctx context.Context, c choice) (*config.Config, *bus.Bus, func(), error) {
	if err := c.check(); err != nil {
		return nil, nil, nil, err
	}
	conf, b, end, err := a.jobBus(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := b.Stream(ctx, proto.StreamDead); err != nil {
		end()
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = fault.WithHint(err, "`collector provision` creates the streams; with the embedded server, `collector run` does")
		}
		return nil, nil, nil, fmt.Errorf("stream DEAD: %w", err)
	}
	return conf, b, end, nil
}

// reasonShown bounds a reason in the table; show has all of it.
const reasonShown = 80

func (a *app) deadList(ctx context.Context, c choice, asJSON bool) error {
	_, b, end, err := a.deadBus(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	n := 0
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	err = c.letters(ctx, b, func(l Letter) error {
		n++
		if asJSON {
			return json.NewEncoder(a.stdout).Encode(l) // a line each: thousands of them need no memory
		}
		if n == 1 {
			fmt.Fprintln(w, "LETTER\tLAST FAILURE\tSTAGE\tOUTPUT\tATTEMPTS\tALERT\tREASON")
		}
		reason := []rune(l.Reason)
		if len(reason) > reasonShown {
			reason = append(reason[:reasonShown], '…')
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Letter, l.Last.Format(time.RFC3339), dash(l.Stage), dash(l.Output), l.Attempts, dash(lastPart(l.AlertID)), string(reason))
		if n%1000 == 0 {
			return w.Flush()
		}
		return nil
	})
	if err == nil && n == 0 && !asJSON {
		fmt.Fprintln(a.stdout, "no dead letters")
	}
	return errors.Join(err, w.Flush())
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// lastPart is what tells two resource ids apart.
func lastPart(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func (a *app) deadShow(ctx context.Context, c choice, asJSON bool) error {
	_, b, end, err := a.deadBus(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	n := 0
	err = c.letters(ctx, b, func(l Letter) error {
		n++
		l.content()
		if asJSON {
			return json.NewEncoder(a.stdout).Encode(l)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintf(w, "letter\t%d\nstage\t%s\noutput\t%s\nalert\t%s\nreason\t%s\nattempts\t%d\nfirst failure\t%s\nlast failure\t%s\n",
			l.Letter, dash(l.Stage), dash(l.Output), dash(l.AlertID), l.Reason, l.Attempts, l.First.Format(time.RFC3339), l.Last.Format(time.RFC3339))
		if l.Stream != "" {
			fmt.Fprintf(w, "message\t%s sequence %d\n", l.Stream, l.Sequence)
		}
		switch {
		case l.Row != nil:
			fmt.Fprintf(w, "row\t%s\n", l.Row)
		case l.Payload != nil:
			fmt.Fprintf(w, "payload\t%q\n", l.Payload)
		default:
			fmt.Fprintf(w, "payload\tnone\n")
		}
		fmt.Fprintln(w)
		return w.Flush()
	})
	if err == nil && n == 0 {
		err = fault.WithHint(fmt.Errorf("there is no dead letter %s", strings.Join(c.names, ", ")), "`collector dead list` shows them")
	}
	return err
}

// content is the payload as a person can read it: the row of an envelope, or what there is.
func (l *Letter) content() {
	payload := l.letter.Payload
	if e, err := proto.DecodeEnvelope(payload); err == nil {
		payload = e.Row
	}
	if json.Valid(payload) {
		l.Row = payload
	} else {
		l.Payload = payload
	}
}
