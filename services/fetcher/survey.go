package fetcher

import (
	"context"
	"errors"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/proto"
)

// Sighting is an alert as a [Survey] meets it.
type Sighting struct {
	Hash  string
	ID    string // resource id; empty where a rule of obfuscation_data masks it
	Start time.Time
}

// Surveyed is what a survey has done.
type Surveyed struct {
	Rows     int64 // received; a row may come twice
	Requests int64
	// Unusable rows have no id.
	Unusable int64
	// Short is how many windows of a second or more Resource Graph has answered with fewer rows than it counts.
	Short int
}

// Survey reads which alerts of a source start in the window, as the fetcher reads them, and hands them to visit, at
// most [resourcegraph.MaxTop] at a time. It publishes nothing, stores nothing and moves no position. c names the
// input's credentials, scope and deduplication; the requests take half of the input's quota_share, and give way when
// Azure's answers say that the quota runs out, as those of a running fetcher do. report is told up to where all is read. Trouble with
// Azure is tried again a few times; then it is returned, as visit's errors are.
func Survey(ctx context.Context, c *config.Config, r Runtime, source proto.Source, w proto.Window, visit func(context.Context, []Sighting) error, report func(upTo time.Time)) (Surveyed, error) {
	input := c.Inputs[source.Input]
	input.Services.IoTSecurityAlerts.QuotaShare /= 2
	halved := *c
	halved.Inputs = map[string]config.Input{source.Input: input}
	client, err := Client(&halved, source.Input, r.Logger, r.Meter)
	if err != nil {
		return Surveyed{}, err
	}
	defer client.Close()
	s, err := service(&halved, source.Input)
	if err != nil {
		return Surveyed{}, err
	}
	f, err := New(Options{Source: source, Service: s, Graph: client, Bus: r.Bus, Logger: r.Logger, Meter: r.Meter, Tracer: r.Tracer, Instance: r.Instance})
	if err != nil {
		return Surveyed{}, err
	}
	return f.survey(ctx, w, visit, report)
}

// survey is the state of one.
type survey struct {
	visit    func(context.Context, []Sighting) error
	unusable int64
	short    int
	page     []Sighting
}

const (
	surveyTries = 4
	surveyWait  = 2 * time.Second
)

func (f *Fetcher) survey(ctx context.Context, w proto.Window, visit func(context.Context, []Sighting) error, report func(time.Time)) (done Surveyed, err error) {
	v := &survey{visit: visit}
	s := &session{Fetcher: f, survey: v, clock: &remoteClock{wall: f.wall}, floor: ceilTick(w.From), short: map[span]int64{}}
	// Windows up to now. The future, where sensors are that are ahead, is one more.
	now := later(f.wall().UTC(), s.floor)
	c := &coverage{s: s, to: earlier(w.To, now), report: newGate(), next: s.floor, width: f.timing.window, done: map[time.Time]bool{}}
	p := s.newPull()
	for {
		window, ok := c.take()
		switch {
		case ok:
		case now.Before(w.To):
			window, now = proto.Window{From: now, To: w.To}, w.To
		default:
			return Surveyed{Rows: c.rows, Requests: p.requests.Load(), Unusable: v.unusable, Short: v.short}, nil
		}
		rows := int64(0)
		for _, sc := range s.scopes() {
			res, err := s.readAgain(ctx, p, request{window: window, scope: sc, background: true})
			if err != nil {
				return Surveyed{}, err
			}
			rows += res.rows
		}
		c.note(window, rows)
		report(window.To)
	}
}

// readAgain reads until it succeeds or has failed a few times.
func (s *session) readAgain(ctx context.Context, p *pull, req request) (res result, err error) {
	wait := surveyWait
	for try := 1; ; try++ {
		if res, err = s.read(ctx, p, req, nil); err == nil || try == surveyTries || ctx.Err() != nil || !passing(err) {
			return res, err
		}
		d := jittered(wait)
		if asked, ok := fault.Delay(err); ok {
			d = max(asked, 100*time.Millisecond)
		}
		if !sleep(ctx, nil, d) {
			return res, ctx.Err()
		}
		wait *= 2
	}
}

// passing says whether asking again may help: not where somebody has to mend something first, nor where the trouble is the visitor's.
func passing(err error) bool {
	var v visitError
	return !errors.As(err, &v) && passes(err)
}

// visitError is what visit has returned.
type visitError struct{ error }

func (e visitError) Unwrap() error { return e.error }

func (v *survey) take(ctx context.Context, s *session, page *resourcegraph.Page) error {
	v.page = v.page[:0]
	for i := range page.Rows {
		row := &page.Rows[i]
		hash, err := s.hashOf(row, s.service.Deduplication)
		if row.Err != nil || err != nil {
			v.unusable++
			continue
		}
		one := Sighting{Hash: hash, Start: row.Start}
		if !s.hidden.id {
			one.ID = row.ID
		}
		v.page = append(v.page, one)
	}
	if err := v.visit(ctx, v.page); err != nil {
		return visitError{err}
	}
	return nil
}
