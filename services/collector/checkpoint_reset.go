package collector

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

// reset is what `checkpoint reset` is asked for.
type reset struct {
	to, input      string
	resend, dryRun bool
}

func (a *app) reset(ctx context.Context, r reset) error {
	var to config.StartTime
	if err := to.UnmarshalText([]byte(r.to)); err != nil {
		return fault.WithHint(fmt.Errorf("--to %.60q is not %w", r.to, err), timeHint)
	}
	if now := time.Now(); to.Time.After(now) {
		return fmt.Errorf("--to %s is not in the past", moment(to.Time))
	}
	c, _, err := a.load()
	if err != nil {
		return err
	}
	source, err := one(c, r.input)
	if err != nil {
		return err
	}
	p, err := a.positions(ctx, c, false)
	if err != nil {
		return err
	}
	defer p.close()
	next := func(b base) (*proto.Checkpoint, error) {
		return resetTo(source, b, to.Time, r.resend, time.Now().UTC())
	}
	if r.dryRun {
		b, err := p.read(ctx, source)
		if err != nil {
			return err
		}
		after, err := next(b)
		if err != nil {
			return err
		}
		return a.printChange(source, b, after, "no: --dry-run")
	}
	before, after, revision, err := p.change(ctx, source, next)
	if err != nil {
		return err
	}
	return a.printChange(source, before, after, fmt.Sprintf("revision %d; %s", revision, p.takenUp(ctx, source)))
}

// resetTo moves the position to `to`. Nothing is read below the floor, and moving forward would skip
// alerts, so both are refused.
func resetTo(source proto.Source, b base, to time.Time, resend bool, now time.Time) (*proto.Checkpoint, error) {
	if b.record == nil {
		return nil, noRecord(source)
	}
	next := *b.record
	switch {
	case to.Before(next.Floor):
		return nil, fault.WithHint(fmt.Errorf("--to %s lies below %s, and no query ever reaches below that", moment(to), moment(next.Floor)),
			"that is start_time_in_utc, or a day before the first start where none is configured: change start_time_in_utc in the configuration and restart; everything from there is then sent again")
	case to.After(next.LastEventTime):
		return nil, fault.WithHint(fmt.Errorf("--to %s lies after the position %s: what is between them would be skipped", moment(to), moment(next.LastEventTime)),
			"everything after the position is read anyway")
	case resend && next.Claiming != nil:
		return nil, fault.WithHint(fmt.Errorf("what was sent before %s is still being claimed, done up to %s", moment(next.Claiming.Before), moment(next.Claiming.Through)),
			"wait until `collector checkpoint show` says that the phase is fetching: otherwise what is not claimed yet would be sent again too")
	}
	next.LastEventTime, next.LastIDs = to, nil
	if !resend {
		return &next, nil
	}
	next.Replaced = append(next.Replaced[:len(next.Replaced):len(next.Replaced)], proto.ReplacedGeneration{Generation: next.Generation, ReplacedAt: now})
	if to.After(next.Floor) {
		// What lies below must not be sent again, but what was never seen of it still has to be.
		next.Claiming = &proto.Claiming{Before: to, Through: next.Floor, KnownIn: next.Generation}
	}
	next.Generation++
	return &next, nil
}

// printChange says what happens.
func (a *app) printChange(source proto.Source, before base, after *proto.Checkpoint, stored string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "source\t%s\n", source)
	was, generation := "none", "none"
	if before.record != nil {
		was, generation = moment(before.record.LastEventTime), fmt.Sprint(before.record.Generation)
	}
	if before.damaged {
		fmt.Fprintf(w, "record\tdamaged; the newest earlier revision that is readable is taken\n")
	}
	fmt.Fprintf(w, "position\t%s -> %s\n", was, moment(after.LastEventTime))
	switch {
	case before.record == nil:
		fmt.Fprintf(w, "generation\t%d\n", after.Generation)
	case before.record.Generation == after.Generation:
		fmt.Fprintf(w, "generation\t%d, as before: what was sent is not sent again\n", after.Generation)
	default:
		fmt.Fprintf(w, "generation\t%s -> %d: everything from the new position on is sent, also what was sent before\n", generation, after.Generation)
	}
	if k := after.Claiming; k != nil {
		fmt.Fprintf(w, "first\twhat was sent of %s to %s is claimed without being sent\n", moment(later(k.Through, after.Floor)), moment(k.Before))
		if len(k.IDs) > 0 {
			fmt.Fprintf(w, "\tand %d records that are named\n", len(k.IDs))
		}
	}
	fmt.Fprintf(w, "floor\t%s, nothing below it is read\n", moment(after.Floor))
	fmt.Fprintf(w, "stored\t%s\n", stored)
	return w.Flush()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
