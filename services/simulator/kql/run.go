package kql

import (
	"iter"
	"maps"
	"slices"
)

// Record is one row of a result.
type Record struct {
	Row   Row              // the table's row; nil behind count
	Added map[string]Value // columns made by the query, nil if it made none
}

// Result is what a query gives.
type Result struct {
	Records []Record
	// Columns are the output's columns if the query chose them (project,
	// count); nil means the table's own columns, then Extended.
	Columns []string
	// Extended are the columns that extend added, in order.
	Extended []string
	// Limited is true if the query contains take or limit: Resource Graph
	// then gives no skip token.
	Limited bool
}

// HasColumn tells whether a column is in the output; table says whether the
// table has it.
func (r *Result) HasColumn(name string, table bool) bool {
	if r.Columns != nil {
		return slices.Contains(r.Columns, name)
	}
	return table || slices.Contains(r.Extended, name)
}

// Run evaluates the query over a table's rows. It reads rows to the end and
// holds in memory what passes the first where stages.
func (q *Query) Run(rows iter.Seq[Row], now Ticks) *Result {
	res := &Result{}
	stages := q.Stages
	lead := 0
	for lead < len(stages) {
		if _, ok := stages[lead].(Where); !ok {
			break
		}
		lead++
	}
	env := &Env{Now: now}
	for row := range rows {
		env.Row = row
		if pass(stages[:lead], env) {
			res.Records = append(res.Records, Record{Row: row})
		}
	}
	for _, s := range stages[lead:] {
		res.apply(s, now)
	}
	return res
}

func pass(stages []Stage, env *Env) bool {
	for _, s := range stages {
		if w, ok := s.(Where); ok && !w.Cond.Eval(env).IsTrue() {
			return false
		}
	}
	return true
}

func (r *Result) apply(s Stage, now Ticks) {
	env := &Env{Now: now}
	at := func(rec Record) *Env {
		env.Row, env.Added = rec.Row, rec.Added
		return env
	}
	switch s := s.(type) {
	case Where:
		r.Records = slices.DeleteFunc(r.Records, func(rec Record) bool { return !s.Cond.Eval(at(rec)).IsTrue() })
	case Extend:
		for i, rec := range r.Records {
			r.Records[i].Added = evaluated(s.Columns, at(rec), maps.Clone(rec.Added))
		}
		r.name(s.Columns, false)
	case Project:
		for i, rec := range r.Records {
			r.Records[i].Added = evaluated(s.Columns, at(rec), nil)
		}
		r.name(s.Columns, true)
	case OrderBy:
		r.sort(s, at)
	case Take:
		r.Limited = true
		r.Records = r.Records[:min(s.N, len(r.Records))]
	case Count:
		n := LongValue(int64(len(r.Records)))
		r.Records = []Record{{Added: map[string]Value{s.Name: n}}}
		r.Columns, r.Extended = []string{s.Name}, nil
	}
}

// evaluated adds columns to into; they do not see each other, as in Kusto.
func evaluated(columns []Named, env *Env, into map[string]Value) map[string]Value {
	values := make([]Value, len(columns))
	for i, c := range columns {
		values[i] = c.Expr.Eval(env)
	}
	if into == nil {
		into = make(map[string]Value, len(columns))
	}
	for i, c := range columns {
		into[c.Name] = values[i]
	}
	return into
}

func (r *Result) name(columns []Named, only bool) {
	if only {
		r.Columns, r.Extended = []string{}, nil
	}
	list := &r.Extended
	if r.Columns != nil {
		list = &r.Columns
	}
	for _, c := range columns {
		if !slices.Contains(*list, c.Name) {
			*list = append(*list, c.Name)
		}
	}
}

func (r *Result) sort(o OrderBy, at func(Record) *Env) {
	type keyed struct {
		rec  Record
		keys []Value
	}
	all := make([]keyed, len(r.Records))
	for i, rec := range r.Records {
		keys := make([]Value, len(o.Keys))
		for k, key := range o.Keys {
			keys[k] = key.Expr.Eval(at(rec))
		}
		all[i] = keyed{rec, keys}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		for k, key := range o.Keys {
			c := order(a.keys[k], b.keys[k])
			if !key.Asc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for i := range all {
		r.Records[i] = all[i].rec
	}
}
