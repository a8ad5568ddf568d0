package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"defenderiot/services/simulator/kql"
)

const (
	graphPath = "/providers/microsoft.resourcegraph/resources"
	// responseLimit is Resource Graph's limit of a response in bytes.
	responseLimit = 16_777_216
	maxPage       = 1000
	maxBody       = 4 << 20
)

// Tokens tells who an access token belongs to.
type Tokens interface {
	// Principal returns the token's principal, or ErrUnknownToken or
	// ErrExpiredToken.
	Principal(token string) (string, error)
}

// Errors of [Tokens.Principal].
var (
	ErrUnknownToken = errors.New("access token is unknown")
	ErrExpiredToken = errors.New("access token has expired")
)

// Graph is Azure Resource Graph's query endpoint over the rows of its Store.
//
// As the service does, it answers pages of at most 1000 rows, gives a skip
// token only while rows remain, id is in the output and the query has no
// take, and counts queries against a quota per principal. Skip tokens are
// offsets bound to the query and the scope, so pages shift when rows come and
// go between them. It is safe for concurrent use.
type Graph struct {
	*Store
	tokens  Tokens
	subs    *subscriptions
	quota   quotas
	faults  faultQueue
	results resultCache
	log     requestLog
	buffers sync.Pool
	offset  atomic.Int64 // of the clock, ns
	limit   atomic.Int64
	queries atomic.Int64
	refused atomic.Int64
	rows    atomic.Int64
}

// NewGraph returns an empty graph without a quota.
func NewGraph(tokens Tokens) *Graph {
	g := &Graph{tokens: tokens, subs: newSubscriptions()}
	g.Store = newStore(g.Now)
	g.buffers.New = func() any { return new([]byte) }
	g.limit.Store(responseLimit)
	return g
}

// Now is the service's clock: the machine's plus SetClockOffset.
func (g *Graph) Now() time.Time { return time.Now().Add(time.Duration(g.offset.Load())) }

// SetClockOffset moves the service's clock, which is in the Date header and
// behind now(), ago() and AddLate.
func (g *Graph) SetClockOffset(d time.Duration) { g.offset.Store(int64(d)) }

// SetQuota changes the quota and starts all windows anew.
func (g *Graph) SetQuota(q Quota) { g.quota.set(q) }

// SetResponseLimit changes the size in bytes above which an answer is refused
// as ResponsePayloadTooLarge; 0 restores the service's 16,777,216.
func (g *Graph) SetResponseLimit(bytes int) {
	if bytes <= 0 {
		bytes = responseLimit
	}
	g.limit.Store(int64(bytes))
}

// Fail spoils coming answers; faults are used up in the order given.
func (g *Graph) Fail(f Fault) { g.faults.add(f) }

// ClearFaults forgets all faults.
func (g *Graph) ClearFaults() { g.faults.clear() }

// query is the request's body, with the service's names.
type query struct {
	Query            string   `json:"query"`
	Subscriptions    []string `json:"subscriptions"`
	ManagementGroups []string `json:"managementGroups"`
	Options          struct {
		SkipToken                string `json:"$skipToken"`
		Top                      *int   `json:"$top"`
		Skip                     *int   `json:"$skip"`
		ResultFormat             string `json:"resultFormat"`
		AllowPartialScopes       bool   `json:"allowPartialScopes"`
		AuthorizationScopeFilter string `json:"authorizationScopeFilter"`
	} `json:"options"`
}

// ServeHTTP answers POST /providers/Microsoft.ResourceGraph/resources.
func (g *Graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Date", g.Now().UTC().Format(http.TimeFormat))
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("x-ms-correlation-request-id", newGUID())
	h.Set("x-ms-request-id", newGUID())
	var q query
	if err := g.decode(r, &q); err != nil {
		g.refuse(w, Request{}, err)
		return
	}
	rec := Request{
		Time: time.Now(), Query: q.Query, Subscriptions: q.Subscriptions, ManagementGroups: q.ManagementGroups,
		Top: maxPage, SkipToken: q.Options.SkipToken,
	}
	if q.Options.Top != nil {
		rec.Top = *q.Options.Top
	}
	if q.Options.Skip != nil {
		rec.Skip = *q.Options.Skip
	}
	g.queries.Add(1)
	fault := g.faults.take(q.Query)
	if !fault.before(w, r) {
		rec.Status = fault.Status
		g.log.add(rec)
		if fault.Status == http.StatusTooManyRequests {
			g.refused.Add(1)
		}
		return
	}
	principal, err := g.authorize(r)
	if err != nil {
		h.Set("WWW-Authenticate", `Bearer authorization_uri="https://`+r.Host+`/", error="invalid_token", error_description="`+err.code+`"`)
		g.refuse(w, rec, err)
		return
	}
	rec.Principal = principal
	if !g.quota.spend(principal, h) {
		g.refused.Add(1)
		g.refuse(w, rec, &answerError{http.StatusTooManyRequests, "RateLimiting", graphError("RateLimiting", rateLimiting)})
		return
	}
	g.answer(w, q, rec, fault)
}

func (g *Graph) decode(r *http.Request, q *query) *answerError {
	if r.Method != http.MethodPost {
		return &answerError{http.StatusMethodNotAllowed, "MethodNotAllowed", armError("MethodNotAllowed", "The requested resource does not support http method '"+r.Method+"'.")}
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return &answerError{http.StatusInternalServerError, "InternalServerError", armError("InternalServerError", "Encountered internal server error.")}
	}
	if r.URL.Query().Get("api-version") == "" {
		return &answerError{http.StatusBadRequest, "MissingApiVersionParameter", armError("MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil || json.Unmarshal(body, q) != nil {
		return badRequest("InvalidRequestContent", "The request content was invalid and could not be deserialized.")
	}
	return nil
}

func (g *Graph) authorize(r *http.Request) (string, *answerError) {
	unauthorized := func(code, message string) *answerError {
		return &answerError{http.StatusUnauthorized, code, armError(code, message)}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return "", unauthorized("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	principal, err := g.tokens.Principal(token)
	switch {
	case errors.Is(err, ErrExpiredToken):
		return "", unauthorized("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time '"+g.Now().UTC().Format("1/2/2006 3:04:05 PM")+"'.")
	case err != nil:
		return "", unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
	}
	return principal, nil
}

// answer evaluates the query and sends a page.
func (g *Graph) answer(w http.ResponseWriter, q query, rec Request, fault Fault) {
	page, aerr := g.page(q, rec, fault)
	if aerr != nil {
		g.refuse(w, rec, aerr)
		return
	}
	buf := g.buffers.Get().(*[]byte)
	defer g.buffers.Put(buf)
	*buf = page.append((*buf)[:0])
	if limit := int(g.limit.Load()); len(*buf) > limit {
		g.refuse(w, rec, badRequest("ResponsePayloadTooLarge", fmt.Sprintf(payloadTooLong, len(*buf), limit)))
		return
	}
	rec.Status, rec.Rows = http.StatusOK, len(page.rows)
	g.log.add(rec)
	g.rows.Add(int64(len(page.rows)))
	fault.write(w, http.StatusOK, *buf)
}

func (g *Graph) page(q query, rec Request, fault Fault) (page, *answerError) {
	if q.Options.ResultFormat != "" && !strings.EqualFold(q.Options.ResultFormat, "objectArray") {
		return page{}, badRequest("UnsupportedResultFormat", "Only the result format objectArray is simulated.")
	}
	if rec.Top < 1 || rec.Skip < 0 {
		return page{}, badRequest("InvalidQueryOptions", "The options $top and $skip must not be negative, $top not 0.")
	}
	parsed, err := kql.Parse(q.Query, schema)
	if err != nil {
		return page{}, queryError(err)
	}
	in, aerr := g.subs.resolve(q.Subscriptions, q.ManagementGroups, g.subscriptions())
	if aerr != nil {
		return page{}, aerr
	}
	from := rec.Skip
	if token := q.Options.SkipToken; token != "" {
		offset, ok := readToken(token, q.Query, in)
		if !ok || fault.RejectToken {
			return page{}, badRequest("InvalidSkipToken", "The provided skip token is invalid or was issued for another query or scope.")
		}
		if q.Options.Skip == nil {
			from = offset
		}
	}
	n := min(rec.Top, maxPage)
	sel := g.selectRows(q.Query, parsed, in, from, n)
	p := page{total: sel.total, rows: sel.rows}
	if next := from + len(sel.rows); next < sel.total {
		if sel.paged {
			p.token = makeToken(next, q.Query, in)
		} else {
			p.truncated = true
		}
	}
	if fault.Repeat > 0 {
		back := min(fault.Repeat, from)
		p.rows = append(g.selectRows(q.Query, parsed, in, from-back, back).rows, p.rows...)
	}
	p.spoil(fault)
	return p, nil
}

func (g *Graph) refuse(w http.ResponseWriter, rec Request, err *answerError) {
	rec.Status = err.status
	g.log.add(rec)
	Fault{}.write(w, err.status, []byte(err.body))
}
