package simulator

import (
	"slices"
	"strings"
	"sync"

	"defenderiot/services/simulator/kql"
)

// subscriptions is what the tenant has and what the principal may read of it.
type subscriptions struct {
	mu     sync.Mutex
	names  map[string]string          // by id, in lower case
	hidden map[string]bool            // exists, cannot be read
	groups map[string]map[string]bool // management group -> subscriptions
}

func newSubscriptions() *subscriptions {
	return &subscriptions{names: map[string]string{}, hidden: map[string]bool{}, groups: map[string]map[string]bool{}}
}

// scope is the set of subscriptions that one request may read.
type scope struct {
	subs map[string]bool
	key  string // equal for equal scopes
}

// covers tells whether no row of these subscriptions is outside the scope.
// Rows without a subscription are seen by everyone.
func (s scope) covers(rows map[string]int) bool {
	for sub := range rows {
		if !s.has(sub) {
			return false
		}
	}
	return true
}

func (s scope) has(sub string) bool { return sub == "" || s.subs[sub] }

// resolve works out what a request may read. Subscriptions that cannot be read
// are left out without a word, unless that leaves nothing.
func (s *subscriptions) resolve(subs, groups, known []string) (scope, *answerError) {
	if len(subs) > 0 && len(groups) > 0 {
		return scope{}, badRequest("InvalidScope", "The request must not specify both subscriptions and management groups.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	readable := map[string]bool{}
	for _, id := range known {
		readable[id] = !s.hidden[id]
	}
	for id := range s.names {
		readable[id] = !s.hidden[id]
	}
	wanted := map[string]bool{}
	switch {
	case len(subs) > 0:
		for _, id := range subs {
			wanted[strings.ToLower(id)] = true
		}
	case len(groups) > 0:
		for _, g := range groups {
			for id := range s.groups[strings.ToLower(g)] {
				wanted[id] = true
			}
		}
	default:
		wanted = readable
	}
	out := scope{subs: map[string]bool{}}
	for id := range wanted {
		if readable[id] {
			out.subs[id] = true
		}
	}
	if len(out.subs) == 0 && (len(subs) > 0 || len(groups) > 0 || len(readable) > 0) {
		return scope{}, forbidden()
	}
	out.key = strings.ToLower(strings.Join(subs, ",") + ";" + strings.Join(groups, ","))
	return out, nil
}

// containers renders the scope's subscriptions as rows of resourcecontainers.
func (s *subscriptions) containers(in scope) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(in.subs))
	for id := range in.subs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	rows := make([]*entry, 0, len(ids))
	for i, id := range ids {
		name := s.names[id]
		if name == "" {
			name = "Subscription " + id
		}
		json := marshal(map[string]any{
			"id": "/subscriptions/" + id, "name": name, "type": "microsoft.resources/subscriptions",
			"subscriptionId": id, "location": "", "resourceGroup": "", "tags": nil,
			"properties": map[string]any{"state": "Enabled"},
		})
		rows = append(rows, newEntry([]byte(json), uint64(i)))
	}
	return rows
}

// AddSubscription makes a subscription known and readable, with its display
// name and the management groups it is under (by their ids). A subscription
// that only occurs in rows is known and readable too.
func (g *Graph) AddSubscription(id, name string, groups ...string) {
	g.subs.mu.Lock()
	defer g.subs.mu.Unlock()
	id = strings.ToLower(id)
	g.subs.names[id] = name
	delete(g.subs.hidden, id)
	for _, group := range groups {
		group = strings.ToLower(group)
		if g.subs.groups[group] == nil {
			g.subs.groups[group] = map[string]bool{}
		}
		g.subs.groups[group][id] = true
	}
}

// Hide takes the right to read a subscription away, or gives it back.
func (g *Graph) Hide(subscription string, hidden bool) {
	g.subs.mu.Lock()
	defer g.subs.mu.Unlock()
	g.subs.hidden[strings.ToLower(subscription)] = hidden
}

// filtered yields the rows within a scope.
func filtered(rows []*entry, in scope) func(yield func(kql.Row) bool) {
	return func(yield func(kql.Row) bool) {
		for _, e := range rows {
			if in.has(e.subscription) && !yield(e) {
				return
			}
		}
	}
}
