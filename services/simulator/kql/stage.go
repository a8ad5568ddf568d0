package kql

import (
	"fmt"
	"strconv"
)

// Query is a parsed and bound query.
type Query struct {
	Table    string // as written
	Stages   []Stage
	Volatile bool // uses now() or ago(): another answer at another time
}

// Stage is one of Where, Extend, Project, OrderBy, Take and Count.
type Stage interface{ stage() }

// Where keeps the rows for which Cond is true.
type Where struct{ Cond Expr }

// Named is a column that extend or project makes.
type Named struct {
	Name string
	Expr Expr
}

// Extend adds columns to what is there.
type Extend struct{ Columns []Named }

// Project keeps nothing but its columns.
type Project struct{ Columns []Named }

// Key is one sort key.
type Key struct {
	Expr Expr
	Asc  bool
}

// OrderBy sorts, stably.
type OrderBy struct{ Keys []Key }

// Take keeps the first N rows.
type Take struct{ N int }

// Count replaces the rows by their number, in a column of that name.
type Count struct{ Name string }

func (Where) stage()   {}
func (Extend) stage()  {}
func (Project) stage() {}
func (OrderBy) stage() {}
func (Take) stage()    {}
func (Count) stage()   {}

func (p *parser) stage() (Stage, error) {
	if p.tok.kind != tokName {
		return nil, p.errorf("expected an operator")
	}
	word := p.tok
	if err := p.advance(); err != nil {
		return nil, err
	}
	switch word.text {
	case "where", "filter":
		cond, err := p.or()
		if err != nil {
			return nil, err
		}
		if !boolean(cond) {
			return nil, p.lexer.fail(word.pos, fmt.Sprintf("where: expects a bool, not a %s", cond.Kind()))
		}
		return Where{cond}, nil
	case "extend":
		columns, err := p.named()
		if err != nil {
			return nil, err
		}
		p.add(columns)
		return Extend{columns}, nil
	case "project":
		columns, err := p.named()
		if err != nil {
			return nil, err
		}
		p.columns = nil
		p.add(columns)
		return Project{columns}, nil
	case "order", "sort":
		return p.orderBy()
	case "take", "limit":
		return p.take()
	case "count":
		p.columns = nil
		p.define(Column{Name: "Count", Type: Long, Added: true})
		return Count{"Count"}, nil
	case "summarize":
		return p.summarize()
	}
	return nil, p.lexer.fail(word.pos, "unknown operator '"+word.text+"'")
}

func (p *parser) add(columns []Named) {
	for _, c := range columns {
		p.define(Column{Name: c.Name, Type: c.Expr.Kind(), Added: true})
	}
}

// named reads [name =] EXPR, ...; without a name only a column or a path
// gives one.
func (p *parser) named() ([]Named, error) {
	var list []Named
	for {
		var n Named
		if p.tok.kind == tokName {
			save, saved := p.lexer, p.tok
			if err := p.advance(); err != nil {
				return nil, err
			}
			if p.is("=") {
				n.Name = saved.text
				if err := p.advance(); err != nil {
					return nil, err
				}
			} else {
				p.lexer, p.tok = save, saved
			}
		}
		at := p.tok.pos
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		n.Expr = e
		if n.Name == "" {
			if n.Name = implied(e); n.Name == "" {
				return nil, p.lexer.fail(at, "expected name = expression")
			}
		}
		list = append(list, n)
		if !p.is(",") {
			return list, nil
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
}

// implied is the name that Kusto gives to a column or path without one:
// properties.a.b becomes properties_a_b.
func implied(e Expr) string {
	switch e := e.(type) {
	case Column:
		return e.Name
	case Member:
		of := implied(e.Of)
		if of == "" || e.Name == "" {
			return ""
		}
		return of + "_" + e.Name
	}
	return ""
}

func (p *parser) orderBy() (Stage, error) {
	if !p.word("by") {
		return nil, p.errorf("expected by")
	}
	var o OrderBy
	for {
		if err := p.advance(); err != nil {
			return nil, err
		}
		at := p.tok.pos
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		if e.Kind() == Dynamic {
			return nil, p.lexer.fail(at, "order by: a dynamic value cannot be sorted; cast it, e.g. tostring() or todatetime()")
		}
		k := Key{Expr: e}
		if p.word("asc") || p.word("desc") {
			k.Asc = p.word("asc")
			if err := p.advance(); err != nil {
				return nil, err
			}
		}
		o.Keys = append(o.Keys, k)
		if !p.is(",") {
			return o, nil
		}
	}
}

func (p *parser) take() (Stage, error) {
	n, err := strconv.Atoi(p.tok.text)
	if p.tok.kind != tokNumber || err != nil {
		return nil, p.errorf("expected a number of rows")
	}
	return Take{n}, p.advance()
}

// summarize reads [name =] count(); nothing else is supported.
func (p *parser) summarize() (Stage, error) {
	c := Count{"count_"}
	if p.tok.kind == tokName && p.tok.text != "count" {
		c.Name = p.tok.text
		if err := p.advance(); err != nil {
			return nil, err
		}
		if err := p.sign("="); err != nil {
			return nil, err
		}
	}
	if !p.word("count") {
		return nil, p.errorf("expected count()")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if args, err := p.arguments(); err != nil {
		return nil, err
	} else if len(args) > 0 {
		return nil, p.errorf("count() takes no arguments")
	}
	p.columns = nil
	p.define(Column{Name: c.Name, Type: Long, Added: true})
	return c, nil
}
