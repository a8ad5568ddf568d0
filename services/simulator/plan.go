package simulator

import (
	"math"
	"strings"

	"defenderiot/services/simulator/kql"
)

// plan is a query that the index answers without evaluating it row by row:
//
//	iotsecurityresources
//	| where type =~ KIND
//	| where todatetime(properties.startTimeUtc) >= FROM [and ... < TO]
//	| order by todatetime(properties.startTimeUtc) asc, id asc
//
// or, for the rows without a start time,
//
//	| where isnull(todatetime(properties.startTimeUtc)) | order by id asc
type plan struct {
	kind     string
	from, to kql.Ticks
	null     bool
}

// planOf recognises such a query; any other is evaluated.
func planOf(q *kql.Query) (plan, bool) {
	p := plan{from: math.MinInt64, to: math.MaxInt64}
	if len(q.Stages) == 0 || !strings.EqualFold(q.Table, alertTable) {
		return p, false
	}
	bounded := false
	last := len(q.Stages) - 1
	for _, s := range q.Stages[:last] {
		w, ok := s.(kql.Where)
		if !ok || !p.restrict(w.Cond, &bounded) {
			return p, false
		}
	}
	o, ok := q.Stages[last].(kql.OrderBy)
	if !ok || p.kind == "" {
		return p, false
	}
	keys := o.Keys
	if p.null {
		return p, !bounded && len(keys) == 1 && isID(keys[0])
	}
	// Without a lower bound rows without a start would be in the answer.
	return p, bounded && len(keys) == 2 && isStart(keys[0].Expr) && keys[0].Asc && isID(keys[1])
}

func (p *plan) restrict(cond kql.Expr, bounded *bool) bool {
	switch e := cond.(type) {
	case kql.Logic:
		return e.And && p.restrict(e.Left, bounded) && p.restrict(e.Right, bounded)
	case kql.Call:
		if e.Name != "isnull" || len(e.Args) != 1 || !isStart(e.Args[0]) {
			return false
		}
		p.null = true
		return true
	case kql.Compare:
		lit, ok := e.Right.(kql.Literal)
		if !ok {
			return false
		}
		if c, ok := e.Left.(kql.Column); ok {
			if c.Name != "type" || c.Added || e.Op != "=~" || p.kind != "" {
				return false
			}
			p.kind = strings.ToLower(lit.Value.Text())
			return true
		}
		if !isStart(e.Left) || lit.Value.Kind() != kql.DateTime {
			return false
		}
		*bounded = true
		return p.bound(e.Op, lit.Value.Ticks())
	}
	return false
}

func (p *plan) bound(op string, t kql.Ticks) bool {
	switch op {
	case ">":
		p.from = max(p.from, t+1)
	case ">=":
		p.from = max(p.from, t)
	case "<":
		p.to = min(p.to, t)
	case "<=":
		p.to = min(p.to, t+1)
	default:
		return false
	}
	return true
}

func isID(k kql.Key) bool {
	c, ok := k.Expr.(kql.Column)
	return ok && c.Name == "id" && !c.Added && k.Asc
}

// isStart recognises todatetime(properties.startTimeUtc).
func isStart(e kql.Expr) bool {
	call, ok := e.(kql.Call)
	if !ok || call.Name != "todatetime" {
		return false
	}
	m, ok := call.Args[0].(kql.Member)
	if !ok || m.Name != "startTimeUtc" {
		return false
	}
	c, ok := m.Of.(kql.Column)
	return ok && c.Name == "properties" && !c.Added
}
