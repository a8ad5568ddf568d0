package replay

import (
	"context"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/ledger"
	"defenderiot/proto"
)

// Progress is where a job stands, for all senders together.
type Progress struct {
	// Settled of the job's selection are confirmed, in dead letters, or no longer in the stream.
	Settled uint64
	// Unconfirmed are written and not settled.
	Unconfirmed uint64
	Resent      uint64
	Dead        uint64
	// Senders with a sign of life in the last ten minutes.
	Senders int

	confirmed uint64
}

// ReadProgress reads a job's ledger. selection may be nil: then it is loaded, unless the job has ended, whose
// ledger may be gone and whose record has the figures.
func ReadProgress(ctx context.Context, b *bus.Bus, j *proto.Job, selection *proto.Sequences) (Progress, error) {
	if r := j.Result; r != nil {
		settled := r.Confirmed + r.Dead + r.Missing
		return Progress{Settled: min(settled, j.Selected), Resent: r.Resent, Dead: r.Dead, confirmed: r.Confirmed}, nil
	}
	if selection == nil {
		s, err := LoadSelection(ctx, b, j)
		if err != nil {
			return Progress{}, err
		}
		selection = &s
	}
	view, err := ledger.Read(ctx, b, proto.JobLedger(j.ID))
	if err != nil {
		return Progress{}, err
	}
	return Progress{
		Settled: settled(selection, &view), Unconfirmed: uint64(view.Unconfirmed()), Senders: view.Senders,
		Resent: view.Counters.Resent, Dead: view.Counters.Dead, confirmed: view.Counters.Confirmed,
	}, nil
}

// settled counts the sequences of s that the ledger holds as settled.
func settled(s *proto.Sequences, v *ledger.View) uint64 {
	var n uint64
	confirmed := v.Confirmed.Ranges()
	for _, r := range s.Ranges() {
		if r.First <= v.Floor {
			n += min(r.Last, v.Floor) - r.First + 1
			if r.Last <= v.Floor {
				continue
			}
			r.First = v.Floor + 1
		}
		for len(confirmed) > 0 && confirmed[0].Last < r.First {
			confirmed = confirmed[1:]
		}
		for _, c := range confirmed {
			if c.First > r.Last {
				break
			}
			n += min(c.Last, r.Last) - max(c.First, r.First) + 1
		}
	}
	return n
}

// Complete reports whether everything of j is settled.
func (p Progress) Complete(j *proto.Job) bool { return p.Settled >= j.Selected }

func (p Progress) result(j *proto.Job, complete bool) proto.JobResult {
	r := proto.JobResult{Confirmed: min(p.confirmed, j.Selected), Dead: p.Dead, Resent: p.Resent}
	// Two senders that confirmed the same alert have both counted it; so what is missing may be more.
	if known := r.Confirmed + r.Dead; complete && known < j.Selected {
		r.Missing = j.Selected - known
	}
	return r
}
