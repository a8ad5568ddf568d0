package replay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/proto"
)

const (
	// Hold is how long after its start a job keeps what it has not sent from being purged.
	Hold = 7 * 24 * time.Hour
	// preparation is how long a command may take to prepare a job, before another one may do it anew.
	preparation = time.Minute
	// settling is how long after a job's end its senders may still write into its ledger: they notice the end
	// within a second, and have a few more to confirm what they wrote.
	settling = 30 * time.Second
	// kept is how long the record of an ended job is shown.
	kept = 30 * 24 * time.Hour
	// MaxRate bounds a job's rate.
	MaxRate = 1_000_000
)

// ErrNoJob: there is no such job.
var ErrNoJob = errors.New("no such job")

// Entry is a job's record with the revision that a change of it names.
type Entry struct {
	proto.Job
	Revision uint64
}

// Base is the id of a job without the number of its run: the same for the same kind, output and words.
func Base(kind, output string, words ...string) string {
	h := sha256.New()
	for _, w := range append([]string{kind, output}, words...) {
		fmt.Fprintf(h, "%d %s", len(w), w)
	}
	return hex.EncodeToString(h.Sum(nil)[:5])
}

// RunID is the id of a job's nth run, counted from 1.
func RunID(base string, n int) string {
	if n == 1 {
		return base
	}
	return fmt.Sprintf("%s-%d", base, n)
}

// Latest returns the newest run of base and its number; 0 and no entry where there is none.
func Latest(entries []Entry, base string) (latest *Entry, n int) {
	for i := range entries {
		e := &entries[i]
		id, number, found := strings.Cut(e.ID, "-")
		if id != base {
			continue
		}
		run := 1
		if found {
			if _, err := fmt.Sscanf(number, "%d", &run); err != nil {
				continue
			}
		}
		if run > n {
			latest, n = e, run
		}
	}
	return latest, n
}

// Jobs returns every job, oldest first. What cannot be read is left out of the list and is in the error, which
// comes with the others: a job of a newer version is no reason to stop work on the rest.
func Jobs(ctx context.Context, b *bus.Bus) ([]Entry, error) {
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketJobs), []string{proto.BucketSubject(proto.BucketJobs, proto.JobKey("*"))})
	if err != nil {
		return nil, err
	}
	var jobs []Entry
	var unreadable error
	for subject, s := range found {
		j, err := proto.DecodeJob(s.Data)
		if err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("%s: %w", subject, err))
			continue
		}
		jobs = append(jobs, Entry{*j, s.Sequence})
	}
	slices.SortFunc(jobs, func(a, b Entry) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return jobs, unreadable
}

// Read returns one job; an error wraps [ErrNoJob] where there is none.
func Read(ctx context.Context, b *bus.Bus, id string) (Entry, error) {
	kv, err := b.KeyValue(ctx, proto.BucketJobs)
	if err != nil {
		return Entry{}, err
	}
	stored, err := kv.Get(ctx, proto.JobKey(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return Entry{}, fmt.Errorf("%w: %s", ErrNoJob, id)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("job %s: %w", id, err)
	}
	j, err := proto.DecodeJob(stored.Value())
	if err != nil {
		return Entry{}, fmt.Errorf("job %s: %w", id, err)
	}
	return Entry{*j, stored.Revision()}, nil
}

// Start prepares and starts j, of which it sets version, state, times and what the selection says. The caller has
// seen that no job of this id runs. An error that comes after the first write leaves a job in preparation
// at most: nothing is sent, and starting again is safe.
func Start(ctx context.Context, b *bus.Bus, j proto.Job, s Selection) (Entry, error) {
	ranges := s.Sequences.Ranges()
	if len(ranges) == 0 {
		return Entry{}, errors.New("nothing is selected")
	}
	parts, err := proto.EncodeSelection(&s.Sequences)
	if err != nil {
		return Entry{}, err
	}
	j.Version, j.State, j.Created, j.Owner = proto.JobVersion, proto.JobPreparing, time.Now().UTC(), rand.Text()
	j.First, j.Last = ranges[0].First, ranges[len(ranges)-1].Last
	j.Selected, j.Bytes, j.Parts = uint64(s.Sequences.Len()), s.Bytes, len(parts)
	e := Entry{Job: j}
	switch old, err := Read(ctx, b, j.ID); {
	case err == nil && old.State == proto.JobPreparing && time.Since(old.Created).Abs() > preparation:
		e.Revision = old.Revision // whoever began it is gone
	case err == nil:
		return Entry{}, fault.WithHint(fmt.Errorf("job %s is being started by another command", j.ID), "run the command again: it shows that job")
	case !errors.Is(err, ErrNoJob):
		return Entry{}, err
	}
	// Only who has stored the record may touch the rest.
	if err := store(ctx, b, &e); err != nil {
		return Entry{}, err
	}
	if err := b.ProvisionJob(ctx, &e.Job); err != nil {
		return Entry{}, err
	}
	for i, part := range parts {
		if _, err := b.JetStream().Publish(ctx, proto.BucketSubject(proto.BucketJobs, proto.JobSelectionKey(j.ID, i)), part); err != nil {
			return Entry{}, fmt.Errorf("job %s: selection: %w", j.ID, err)
		}
	}
	e.State = proto.JobRunning
	return e, store(ctx, b, &e)
}

// errMoved: somebody else has changed the record.
var errMoved = errors.New("the job's record has moved meanwhile")

// store writes the record over the revision that it was read at. An outcome that is unknown is looked up.
func store(ctx context.Context, b *bus.Bus, e *Entry) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	subject := proto.BucketSubject(proto.BucketJobs, proto.JobKey(e.ID))
	ack, err := b.JetStream().Publish(ctx, subject, data, jetstream.WithExpectLastSequencePerSubject(e.Revision))
	if err == nil {
		e.Revision = ack.Sequence
		return nil
	}
	found, lookErr := b.Lookup(ctx, proto.BucketStream(proto.BucketJobs), []string{subject})
	if s, ok := found[subject]; lookErr == nil && ok && bytes.Equal(s.Data, data) {
		e.Revision = s.Sequence
		return nil
	}
	if bus.Conflict(err) {
		return fmt.Errorf("job %s: %w", e.ID, errMoved)
	}
	return fmt.Errorf("job %s: %w", e.ID, err)
}

// LoadSelection reads what a job is to send; an error also where a part of it is missing.
func LoadSelection(ctx context.Context, b *bus.Bus, j *proto.Job) (proto.Sequences, error) {
	var s proto.Sequences
	subjects := make([]string, j.Parts)
	for i := range subjects {
		subjects[i] = proto.BucketSubject(proto.BucketJobs, proto.JobSelectionKey(j.ID, i))
	}
	found, err := b.Lookup(ctx, proto.BucketStream(proto.BucketJobs), subjects)
	if err != nil {
		return s, fmt.Errorf("job %s: %w", j.ID, err)
	}
	for _, subject := range subjects {
		part, ok := found[subject]
		if !ok {
			return s, fmt.Errorf("job %s: %s is missing", j.ID, subject)
		}
		if err := s.AddSelection(part.Data); err != nil {
			return s, fmt.Errorf("job %s: %w", j.ID, err)
		}
	}
	if got := uint64(s.Len()); got != j.Selected {
		return s, fmt.Errorf("job %s: the selection holds %d sequences, the record says %d", j.ID, got, j.Selected)
	}
	return s, nil
}

// Cancel ends a job; senders stop within a second or two, and what they wrote by then may have arrived. It
// returns the job as it is afterwards: done, if it was done before.
func Cancel(ctx context.Context, b *bus.Bus, id string) (Entry, error) {
	for {
		e, err := Read(ctx, b, id)
		if err != nil || e.State == proto.JobDone || e.State == proto.JobCancelled {
			return e, err
		}
		result := proto.JobResult{}
		if e.State == proto.JobRunning {
			p, err := ReadProgress(ctx, b, &e.Job, nil)
			if err != nil {
				return e, err
			}
			result = p.result(&e.Job, false)
		}
		e.State, e.Ended, e.Result = proto.JobCancelled, time.Now().UTC(), &result
		if err := store(ctx, b, &e); !errors.Is(err, errMoved) {
			return e, err
		}
	}
}

// Finish marks a running job as done once everything in it is settled. Any number of senders may call it: the
// first one stores it, and that somebody else has changed the record is no error.
func Finish(ctx context.Context, b *bus.Bus, e Entry, p Progress) error {
	result := p.result(&e.Job, true)
	e.State, e.Ended, e.Result = proto.JobDone, time.Now().UTC(), &result
	if err := store(ctx, b, &e); !errors.Is(err, errMoved) {
		return err
	}
	return nil
}

// Sweep removes what ended jobs leave behind, and records that are older than 30 days. It takes the operator's
// rights; every replay command and provisioning call it.
func Sweep(ctx context.Context, b *bus.Bus) error {
	jobs, err := Jobs(ctx, b)
	if err != nil && len(jobs) == 0 {
		return err
	}
	var errs []error
	for _, e := range jobs {
		if e.State != proto.JobDone && e.State != proto.JobCancelled {
			continue
		}
		if age := time.Since(e.Ended); age > kept && e.Swept {
			errs = append(errs, b.Purge(ctx, proto.BucketStream(proto.BucketJobs), proto.BucketSubject(proto.BucketJobs, proto.JobKey(e.ID))))
			continue
		} else if e.Swept || age.Abs() < settling {
			continue
		}
		if err := b.RemoveJob(ctx, &e.Job); err != nil {
			errs = append(errs, err)
			continue
		}
		e.Swept = true
		if err := store(ctx, b, &e); !errors.Is(err, errMoved) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Holds reports whether what j has not sent yet must not be purged.
func Holds(j *proto.Job, now time.Time) bool {
	return (j.State == proto.JobRunning || j.State == proto.JobPreparing) && j.Stream == proto.StreamUnique && now.Sub(j.Created) < Hold
}
