package fetcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/faultpoint"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// scope is what one query covers; the zero scope is everything that the principal can read.
type scope struct{ subscriptions []string }

// scopes splits the configured subscriptions into as many as one query may name.
func (f *Fetcher) scopes() []scope { return scopesOf(f.service.Subscriptions) }

func scopesOf(subscriptions []string) []scope {
	if len(subscriptions) == 0 {
		return []scope{{}}
	}
	var out []scope
	for len(subscriptions) > 0 {
		n := min(len(subscriptions), resourcegraph.MaxSubscriptions)
		out = append(out, scope{subscriptions[:n]})
		subscriptions = subscriptions[n:]
	}
	return out
}

// request is one query to its last page.
type request struct {
	window     proto.Window // a zero To has no upper bound
	nullStarts bool         // instead of the window: the rows without a start
	scope      scope
	background bool // beside the steady pull; shares its memory with the other such reads
}

func (r request) text(floor time.Time) string {
	if r.nullStarts {
		return resourcegraph.NullStartQuery()
	}
	return resourcegraph.WindowQuery(later(r.window.From, floor), r.window.To)
}

// result is what a scan found.
type result struct {
	rows   int64
	newest time.Time // newest start
	ids    []string  // identities of the rows that start at newest, at most proto.MaxLastIDs
	date   time.Time // Date of the last page
	// short: rows are missing from the answer, because it was truncated, its total shrank, it held fewer
	// rows than its total, or a part of it exceeds the answer's size limit row by row.
	short bool
	// missing is how many rows short is short of, 0 if that cannot be told.
	missing int64
	// unsure is short as far as it is known while pages are still coming.
	unsure bool
	last   bool // no page follows
}

// add counts a page in.
func (r *result) add(page *resourcegraph.Page) {
	r.rows += int64(len(page.Rows))
	for i := range page.Rows {
		row := &page.Rows[i]
		switch {
		case row.Start.After(r.newest):
			r.newest, r.ids = row.Start, append(r.ids[:0:0], proto.Identity(row.ID))
		case row.Start.Equal(r.newest) && len(r.ids) < proto.MaxLastIDs && !row.Start.IsZero():
			r.ids = append(r.ids, proto.Identity(row.ID))
		}
	}
	if !page.Date.IsZero() {
		r.date = page.Date
	}
}

// newestOf is the newest start on the page.
func newestOf(page *resourcegraph.Page) (newest time.Time) {
	for i := range page.Rows {
		newest = later(newest, page.Rows[i].Start)
	}
	return newest
}

// merge combines the results of two scans of one pull.
func (r *result) merge(o result) {
	r.rows += o.rows
	switch {
	case o.newest.After(r.newest):
		r.newest, r.ids = o.newest, o.ids
	case o.newest.Equal(r.newest):
		r.ids = append(r.ids, o.ids...)
		r.ids = r.ids[:min(len(r.ids), proto.MaxLastIDs)]
	}
	if r.date.IsZero() || (!o.date.IsZero() && o.date.Before(r.date)) {
		r.date = o.date
	}
}

// reached is how far the position may move after the rows so far: to the newest start, but not beyond
// the time in Azure, so that a sensor whose clock is ahead moves nothing too far. The zero time where
// the answer had no Date.
func (r *result) reached() (time.Time, []string) {
	if r.newest.After(r.date) {
		return r.date, nil
	}
	return r.newest, r.ids
}

// answer is a page that has arrived, or why it has not. release gives its place in memory back.
type answer struct {
	page    *resourcegraph.Page
	err     error
	at      time.Time // when it arrived
	span    trace.Span
	release func()
}

// tokenRestarts is how often a scan begins anew because its skip token was rejected.
const tokenRestarts = 3

// tokenLife is the age at which a skip token is given up. A token counts rows, so the more has come and
// gone since its page was answered, the more can slip past the boundary to the next; that happens when
// RAW was full for a while. Rows are then asked for anew from the last acknowledged start on.
const tokenLife = 30 * time.Second

// scan reads all pages of req and publishes each; acked is called after each acknowledged page. One
// page is fetched ahead while another is being published. When it returns nil, every row that the
// answers held is safe.
func (s *session) scan(ctx context.Context, p *pull, req request, acked func(context.Context, result) error) (result, error) {
	var total result
	rejected := 0
	for {
		res, aged, err := s.readPages(ctx, p, req, total.unsure, acked)
		switch {
		case errors.Is(err, resourcegraph.ErrTokenRejected) && rejected < tokenRestarts:
			rejected++
			s.logger.Debug("the skip token was rejected, reading the window again from its start")
			continue
		case err != nil:
			return total, err
		}
		total.merge(res)
		total.date = res.date
		total.short, total.missing, total.unsure, total.last = res.short, res.missing, res.unsure, res.last
		if !aged {
			return total, nil
		}
		req.window.From = res.newest
	}
}

// readPages reads pages until the last one, or until a token is too old to go on with (aged).
func (s *session) readPages(ctx context.Context, p *pull, req request, unsure bool, acked func(context.Context, result) error) (res result, aged bool, err error) {
	res.unsure = unsure
	fetching, cancel := untilStop(ctx, s.stop)
	next := s.fetch(fetching, p, req, "")
	defer func() {
		cancel()
		if a, open := <-next; open { // wait for the page that is under way, if any
			a.release()
			a.span.End()
		}
	}()
	var most int64
	token := ""
	for {
		a := <-next
		next = closed
		if a.err != nil {
			a.release()
			a.span.End()
			if errors.Is(a.err, resourcegraph.ErrPayloadTooLarge) {
				// One row alone is too large. Halved windows get everything around it.
				res.short = true
				return res, false, nil
			}
			if stopped(s.stop) {
				return res, false, fault.ShuttingDown(a.err)
			}
			return res, false, a.err
		}
		faultpoint.Hit(faultpoint.PageReceived)
		page := a.page
		last := page.SkipToken == ""
		// With as many equal starts as a page holds, only the token leads on.
		aged = !last && time.Since(a.at) > tokenLife && newestOf(page).After(req.window.From) && !req.nullStarts
		if !last && !aged {
			if page.SkipToken == token {
				a.release()
				a.span.End()
				return res, false, errors.New("the same skip token came twice from Resource Graph")
			}
			token = page.SkipToken
			next = s.fetch(fetching, p, req, token)
		}
		// A shrinking total means that rows went away between two pages and that as many others slipped
		// past the page boundary: nothing after it may move the position until it was read again.
		res.unsure = res.unsure || page.Truncated || page.Total < most
		most = max(most, page.Total)
		res.add(page)

		// Under ctx, not the fetching one: a page in hand is stored even while the program stops.
		err := s.take(trace.ContextWithSpan(ctx, a.span), p, page)
		telemetry.Fail(a.span, err)
		a.span.End()
		a.release()
		if err != nil {
			return res, false, err
		}
		if res.last = last; last {
			res.short = res.unsure || res.rows < most
			res.missing = max(0, most-res.rows)
			res.unsure = res.short
		}
		faultpoint.Hit(faultpoint.RawAcknowledged)
		if acked != nil {
			if err := acked(ctx, res); err != nil {
				return res, false, err
			}
		}
		if last || aged {
			return res, aged, nil
		}
	}
}

// take does with a page what the session is for.
func (s *session) take(ctx context.Context, p *pull, page *resourcegraph.Page) error {
	if s.survey != nil {
		return s.survey.take(ctx, s, page)
	}
	return s.publish(ctx, p, page)
}

// closed is the channel of "no page is under way".
var closed = func() chan answer { c := make(chan answer); close(c); return c }()

// fetch gets one page in the background; the channel gives one answer.
func (s *session) fetch(ctx context.Context, p *pull, req request, token string) chan answer {
	out := make(chan answer, 1)
	go func() {
		defer close(out)
		a := answer{release: func() {}}
		var traced context.Context
		traced, a.span = s.tracer.Start(ctx, "page", trace.WithNewRoot(), trace.WithAttributes(
			attribute.String("input", s.source.Input), attribute.String("service", s.source.Service),
			attribute.Int64("pulling_id", p.id)))
		if req.background {
			select {
			case s.slots <- struct{}{}:
				var once sync.Once
				a.release = func() { once.Do(func() { <-s.slots }) }
			case <-ctx.Done():
				a.err = ctx.Err()
				out <- a
				return
			}
		}
		// Whether a token was sent, never the token: it says what the query found.
		_, span := s.tracer.Start(traced, "request", trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.Bool("skip_token", token != "")))
		a.page, a.err = s.page(ctx, p, req, token)
		a.at = time.Now()
		if a.err == nil {
			span.SetAttributes(attribute.Int("rows", len(a.page.Rows)), attribute.Int("bytes", a.page.Bytes))
		}
		telemetry.Fail(span, a.err)
		telemetry.Fail(a.span, a.err)
		span.End()
		out <- a
	}()
	return out
}

// page asks for one page, with a smaller one as long as the answer would be too large.
func (s *session) page(ctx context.Context, p *pull, req request, token string) (*resourcegraph.Page, error) {
	for {
		top := s.pageSize.get()
		q := resourcegraph.Query{
			Text:               req.text(s.floor),
			Subscriptions:      req.scope.subscriptions,
			ManagementGroups:   s.managementGroups(req.scope),
			Top:                top,
			SkipToken:          token,
			AllowPartialScopes: s.service.AllowPartialScopes,
		}
		var page *resourcegraph.Page
		err := s.ask(ctx, s.timing.fetch, func(ctx context.Context) (err error) {
			page, err = s.graph.Page(ctx, q)
			return err
		})
		p.requests.Add(1)
		s.metrics.pages.Add(ctx, 1, s.metrics.labels)
		switch {
		case err == nil && page == nil:
			return nil, errors.New("no page and no error from Resource Graph")
		case err == nil:
			s.pageSize.succeeded(top)
			s.clock.observe(page.Date)
			p.received.Add(int64(len(page.Rows)))
			s.metrics.page()
			s.metrics.rows.Add(ctx, int64(len(page.Rows)), s.metrics.labels)
			return page, nil
		case errors.Is(err, resourcegraph.ErrPayloadTooLarge) && top > 1:
			s.pageSize.tooLarge(top)
			s.logger.Debug(fmt.Sprintf("the answer would be too large with %d rows a page", top))
		default:
			return nil, err
		}
	}
}

// managementGroups are the configured ones, unless the scope names subscriptions: both exclude each
// other.
func (f *Fetcher) managementGroups(sc scope) []string {
	if len(sc.subscriptions) > 0 {
		return nil
	}
	return f.service.ManagementGroups
}

// pageSize is the rows asked for in a page. It is halved when an answer would be too large, remembered,
// and doubled after a run of successes, up to the service's limit. It is safe for concurrent use.
type pageSize struct {
	mu   sync.Mutex
	top  int
	good int
}

// growAfter is how many pages must succeed before a larger one is tried.
const growAfter = 20

func (z *pageSize) get() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.top
}

func (z *pageSize) tooLarge(top int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.top, z.good = max(1, min(z.top, top/2)), 0
}

func (z *pageSize) succeeded(top int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if top != z.top || z.top == resourcegraph.MaxTop {
		return
	}
	if z.good++; z.good >= growAfter {
		z.top, z.good = min(resourcegraph.MaxTop, z.top*2), 0
	}
}
