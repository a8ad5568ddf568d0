package simulator

import (
	"slices"
	"sync"
	"time"
)

// maxRequests is how many requests are remembered.
const maxRequests = 10_000

// Request is a query as it arrived, for tests to look at.
type Request struct {
	Time             time.Time
	Principal        string // "" if it was refused before
	Query            string
	Subscriptions    []string
	ManagementGroups []string
	Top              int // 1000 if the request named none
	Skip             int
	SkipToken        string
	Status           int // of the answer, 0 if there was none
	Rows             int // in the answer
}

// GraphStats are counters since the graph was made.
type GraphStats struct {
	Queries   int64 `json:"queries"`   // requests with a readable body
	Throttled int64 `json:"throttled"` // answers with status 429
	Rows      int64 `json:"rows"`      // rows in answers
	Alerts    int   `json:"alerts"`    // rows in the store now
}

type requestLog struct {
	mu   sync.Mutex
	list []Request
	next int // where the oldest is, once the list is full
}

func (l *requestLog) add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < maxRequests {
		l.list = append(l.list, r)
		return
	}
	l.list[l.next] = r
	l.next = (l.next + 1) % maxRequests
}

// Requests returns the requests answered so far, oldest first, at most the
// last 10,000.
func (g *Graph) Requests() []Request {
	g.log.mu.Lock()
	defer g.log.mu.Unlock()
	return slices.Concat(g.log.list[g.log.next:], g.log.list[:g.log.next])
}

// Stats returns the counters.
func (g *Graph) Stats() GraphStats {
	return GraphStats{
		Queries: g.queries.Load(), Throttled: g.refused.Load(), Rows: g.rows.Load(), Alerts: g.Len(),
	}
}
