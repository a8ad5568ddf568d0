package kql

import (
	"fmt"
	"strconv"
)

// maxDepth bounds the nesting of expressions, and with it the stack.
const maxDepth = 100

// Schema names a table's columns and their types. It is false for a table
// that is unknown.
type Schema func(table string) (columns map[string]Kind, ok bool)

// UnknownTableError is returned for a table that the schema does not have;
// Resource Graph answers DisallowedLogicalTableName.
type UnknownTableError struct{ Table string }

func (e *UnknownTableError) Error() string {
	return fmt.Sprintf("table %s is unknown", e.Table)
}

// Parse reads and binds a query. The error is a *ParseError or an
// *UnknownTableError. A Query is read-only: it may be used by several
// goroutines.
func Parse(text string, schema Schema) (*Query, error) {
	p := &parser{lexer: lexer{src: text}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind != tokName {
		return nil, p.errorf("expected a table name")
	}
	columns, ok := schema(p.tok.text)
	if !ok {
		return nil, &UnknownTableError{Table: p.tok.text}
	}
	q := &Query{Table: p.tok.text}
	for name, kind := range columns {
		p.define(Column{Name: name, Type: kind})
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for p.tok.kind != tokEOF {
		if err := p.sign("|"); err != nil {
			return nil, err
		}
		s, err := p.stage()
		if err != nil {
			return nil, err
		}
		q.Stages = append(q.Stages, s)
	}
	q.Volatile = p.volatile
	return q, nil
}

type parser struct {
	lexer    lexer
	tok      token
	depth    int
	columns  map[string]Column
	volatile bool
}

func (p *parser) define(c Column) {
	if p.columns == nil {
		p.columns = map[string]Column{}
	}
	p.columns[c.Name] = c
}

func (p *parser) advance() (err error) {
	p.tok, err = p.lexer.next()
	return err
}

func (p *parser) errorf(format string, args ...any) error {
	return p.lexer.fail(p.tok.pos, fmt.Sprintf(format, args...))
}

func (p *parser) is(sign string) bool { return p.tok.kind == tokSign && p.tok.text == sign }

func (p *parser) word(w string) bool { return p.tok.kind == tokName && p.tok.text == w }

func (p *parser) sign(s string) error {
	if !p.is(s) {
		return p.errorf("expected %s", s)
	}
	return p.advance()
}

func (p *parser) or() (Expr, error) {
	return p.logic("or", false, func() (Expr, error) { return p.logic("and", true, p.comparison) })
}

func (p *parser) logic(word string, and bool, operand func() (Expr, error)) (Expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("expression nested too deeply")
	}
	defer func() { p.depth-- }()
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for n := 0; p.word(word); n++ {
		if n > 1000 {
			return nil, p.errorf("expression too long")
		}
		at := p.tok.pos
		if err := p.advance(); err != nil {
			return nil, err
		}
		right, err := operand()
		if err != nil {
			return nil, err
		}
		if !boolean(left) || !boolean(right) {
			return nil, p.lexer.fail(at, "operands of "+word+" must be bool")
		}
		left = Logic{And: and, Left: left, Right: right}
	}
	return left, nil
}

func boolean(e Expr) bool { return e.Kind() == Bool || e.Kind() == Dynamic }

func (p *parser) comparison() (Expr, error) {
	left, err := p.postfix()
	if err != nil {
		return nil, err
	}
	at := p.tok.pos
	if p.word("in") || p.is("!") {
		return p.in(left)
	}
	if p.tok.kind != tokSign {
		return left, nil
	}
	op := p.tok.text
	switch op {
	case "==", "!=", "=~", "!~", "<", "<=", ">", ">=":
	default:
		return left, nil
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.postfix()
	if err != nil {
		return nil, err
	}
	if !comparable(op, left.Kind(), right.Kind()) {
		return nil, p.lexer.fail(at, fmt.Sprintf("cannot compare values of types %s and %s with %s", left.Kind(), right.Kind(), op))
	}
	return Compare{Op: op, Left: left, Right: right}, nil
}

// comparable is Kusto's type check: a dynamic value goes with everything, an
// order between strings is not defined.
func comparable(op string, a, b Kind) bool {
	if op == "=~" || op == "!~" {
		return (a == String || a == Dynamic) && (b == String || b == Dynamic)
	}
	if a == Dynamic || b == Dynamic || a == Null || b == Null {
		return true
	}
	if a == String && b == String {
		return op == "==" || op == "!="
	}
	number := func(k Kind) bool { return k == Long || k == Real }
	return a == b || number(a) && number(b)
}

// in reads [!]in[~] ( expr, ... ).
func (p *parser) in(of Expr) (Expr, error) {
	e := In{Of: of}
	if p.is("!") {
		e.Negate = true
		if err := p.advance(); err != nil {
			return nil, err
		}
		if !p.word("in") {
			return nil, p.errorf("expected in after !")
		}
	}
	// The tilde belongs to the word and is no sign of its own.
	if p.lexer.pos < len(p.lexer.src) && p.lexer.src[p.lexer.pos] == '~' {
		e.Fold = true
		p.lexer.pos++
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	list, err := p.arguments()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, p.errorf("expected a list of values")
	}
	op := "=="
	if e.Fold {
		op = "=~"
	}
	for _, item := range list {
		if !comparable(op, of.Kind(), item.Kind()) {
			return nil, p.errorf("cannot compare values of types %s and %s", of.Kind(), item.Kind())
		}
	}
	e.List = list
	return e, nil
}

// arguments reads ( expr, ... ), also empty.
func (p *parser) arguments() ([]Expr, error) {
	if err := p.sign("("); err != nil {
		return nil, err
	}
	var list []Expr
	for !p.is(")") {
		if len(list) > 0 {
			if err := p.sign(","); err != nil {
				return nil, err
			}
		}
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, p.advance()
}

// postfix reads a primary and the path behind it.
func (p *parser) postfix() (Expr, error) {
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	for steps := 0; p.is(".") || p.is("["); steps++ {
		if e.Kind() != Dynamic {
			return nil, p.errorf("a value of type %s has no members", e.Kind())
		}
		if steps > maxDepth {
			return nil, p.errorf("path too long")
		}
		bracket := p.is("[")
		if err := p.advance(); err != nil {
			return nil, err
		}
		m := Member{Of: e}
		switch {
		case !bracket && p.tok.kind == tokName, bracket && p.tok.kind == tokString && p.tok.text != "":
			m.Name = p.tok.text
		case bracket && p.tok.kind == tokNumber:
			if m.Index, err = strconv.Atoi(p.tok.text); err != nil {
				return nil, p.errorf("expected an index")
			}
		default:
			return nil, p.errorf("expected a member")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if bracket {
			if err := p.sign("]"); err != nil {
				return nil, err
			}
		}
		e = m
	}
	return e, nil
}

func (p *parser) primary() (Expr, error) {
	t := p.tok
	switch {
	case t.kind == tokString:
		return Literal{StringValue(t.text)}, p.advance()
	case t.kind == tokSpan:
		return Literal{Value{kind: Timespan, num: int64(t.span)}}, p.advance()
	case t.kind == tokNumber, p.is("-"):
		return p.numeral()
	case t.kind == tokDateTime:
		if t.text == "null" {
			return Literal{}, p.advance()
		}
		at, ok := ParseDateTime(t.text)
		if !ok {
			return nil, p.errorf("not a datetime: %s", t.text)
		}
		return Literal{DateTimeValue(at)}, p.advance()
	case p.is("("):
		if err := p.advance(); err != nil {
			return nil, err
		}
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		return e, p.sign(")")
	case t.kind == tokName:
		return p.name(t)
	}
	return nil, p.errorf("expected an expression")
}

func (p *parser) numeral() (Expr, error) {
	text := ""
	if p.is("-") {
		text = "-"
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.tok.kind != tokNumber {
			return nil, p.errorf("expected a number")
		}
	}
	text += p.tok.text
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return Literal{LongValue(n)}, p.advance()
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, p.errorf("not a number")
	}
	return Literal{Value{kind: Real, real: f}}, p.advance()
}

// name reads true, false, a column or a function call.
func (p *parser) name(t token) (Expr, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.is("(") {
		return p.call(t)
	}
	if t.text == "true" || t.text == "false" {
		return Literal{BoolValue(t.text == "true")}, nil
	}
	c, ok := p.columns[t.text]
	if !ok {
		return nil, p.lexer.fail(t.pos, "failed to resolve column or scalar expression named '"+t.text+"'")
	}
	return c, nil
}

func (p *parser) call(t token) (Expr, error) {
	f, ok := functions[t.text]
	if !ok {
		return nil, p.lexer.fail(t.pos, "unknown function '"+t.text+"'")
	}
	args, err := p.arguments()
	if err != nil {
		return nil, err
	}
	if len(args) < f.least || len(args) > f.most {
		return nil, p.lexer.fail(t.pos, t.text+"(): wrong number of arguments")
	}
	switch t.text {
	case "ago", "now":
		p.volatile = true
		if len(args) > 0 && args[0].Kind() != Timespan {
			return nil, p.lexer.fail(t.pos, t.text+"(): expects a timespan")
		}
	case "not":
		if !boolean(args[0]) {
			return nil, p.lexer.fail(t.pos, "not(): expects a bool")
		}
	}
	return Call{Name: t.text, Args: args}, nil
}
