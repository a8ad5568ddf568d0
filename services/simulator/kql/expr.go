package kql

import "strings"

// Row gives a table's row to expressions.
type Row interface {
	// Column returns the value of one of the table's columns, null where the
	// row has none.
	Column(name string) Value
}

// Env is what an expression is evaluated in.
type Env struct {
	Row   Row
	Now   Ticks            // now() and ago()
	Added map[string]Value // columns made by extend, project and summarize
}

// Expr is a bound expression. It keeps no state: it may be evaluated from
// several goroutines at once.
type Expr interface {
	// Eval returns the value for a row, null where it has none.
	Eval(env *Env) Value
	// Kind is the static type.
	Kind() Kind
}

// Literal is a constant.
type Literal struct{ Value Value }

// Eval implements Expr.
func (e Literal) Eval(*Env) Value { return e.Value }

// Kind implements Expr.
func (e Literal) Kind() Kind { return e.Value.kind }

// Column is a column of the table or one that extend made.
type Column struct {
	Name  string
	Type  Kind
	Added bool // made by extend or project
}

// Eval implements Expr.
func (e Column) Eval(env *Env) Value {
	if e.Added {
		return env.Added[e.Name]
	}
	return env.Row.Column(e.Name)
}

// Kind implements Expr.
func (e Column) Kind() Kind { return e.Type }

// Member is a step into a dynamic value: a name, or an index where Name is "".
type Member struct {
	Of    Expr
	Name  string
	Index int
}

// Eval implements Expr.
func (e Member) Eval(env *Env) Value {
	of := e.Of.Eval(env)
	if e.Name == "" {
		return of.element(e.Index)
	}
	return of.member(e.Name)
}

// Kind implements Expr.
func (e Member) Kind() Kind { return Dynamic }

// Logic is "and" (And true) or "or" with Kusto's three values.
type Logic struct {
	And         bool
	Left, Right Expr
}

// Eval implements Expr.
func (e Logic) Eval(env *Env) Value {
	left := e.Left.Eval(env).scalar()
	if left.kind == Bool && (left.num == 1) != e.And {
		return left // false and ..., true or ...
	}
	right := e.Right.Eval(env).scalar()
	if right.kind == Bool && (right.num == 1) != e.And {
		return right
	}
	if left.kind != Bool || right.kind != Bool {
		return Value{}
	}
	return right
}

// Kind implements Expr.
func (e Logic) Kind() Kind { return Bool }

// Compare holds two values against each other.
type Compare struct {
	Op          string // == != =~ !~ < <= > >=
	Left, Right Expr
}

// Eval implements Expr. With one null, == is false and != is true; with two,
// or with an order asked of a null, the answer is null (which a where drops).
func (e Compare) Eval(env *Env) Value {
	left, right := e.Left.Eval(env).scalar(), e.Right.Eval(env).scalar()
	switch e.Op {
	case "=~":
		return BoolValue(strings.EqualFold(left.toString(), right.toString()))
	case "!~":
		return BoolValue(!strings.EqualFold(left.toString(), right.toString()))
	case "==", "!=":
		if left.kind == Null && right.kind == Null {
			return Value{}
		}
		c, ok := left.compare(right)
		return BoolValue((ok && c == 0) == (e.Op == "=="))
	}
	c, ok := left.compare(right)
	if !ok {
		return Value{}
	}
	switch e.Op {
	case "<":
		return BoolValue(c < 0)
	case "<=":
		return BoolValue(c <= 0)
	case ">":
		return BoolValue(c > 0)
	}
	return BoolValue(c >= 0)
}

// Kind implements Expr.
func (e Compare) Kind() Kind { return Bool }

// In tells whether a value is one of a list.
type In struct {
	Of     Expr
	List   []Expr
	Fold   bool // in~
	Negate bool // !in
}

// Eval implements Expr.
func (e In) Eval(env *Env) Value {
	op := "=="
	if e.Fold {
		op = "=~"
	}
	of := Literal{e.Of.Eval(env)}
	for _, item := range e.List {
		if (Compare{Op: op, Left: of, Right: item}).Eval(env).IsTrue() {
			return BoolValue(!e.Negate)
		}
	}
	return BoolValue(e.Negate)
}

// Kind implements Expr.
func (e In) Kind() Kind { return Bool }

// Call is a scalar function with its arguments.
type Call struct {
	Name string
	Args []Expr
}

// function describes a scalar function: its number of arguments and type.
type function struct {
	least, most int
	kind        Kind
}

var functions = map[string]function{
	"ago":        {1, 1, DateTime},
	"now":        {0, 1, DateTime},
	"not":        {1, 1, Bool},
	"todatetime": {1, 1, DateTime},
	"tostring":   {1, 1, String},
	"tolower":    {1, 1, String},
	"isnull":     {1, 1, Bool},
	"isnotnull":  {1, 1, Bool},
	"isempty":    {1, 1, Bool},
	"isnotempty": {1, 1, Bool},
}

// Eval implements Expr.
func (e Call) Eval(env *Env) Value {
	var arg Value
	if len(e.Args) > 0 {
		arg = e.Args[0].Eval(env).scalar()
	}
	switch e.Name {
	case "ago":
		return DateTimeValue(env.Now - arg.Ticks())
	case "now":
		return DateTimeValue(env.Now + arg.Ticks())
	case "not":
		if arg.kind != Bool {
			return Value{}
		}
		return BoolValue(arg.num == 0)
	case "todatetime":
		return arg.toDateTime()
	case "tostring":
		return StringValue(arg.toString())
	case "tolower":
		return StringValue(strings.ToLower(arg.toString()))
	case "isnull":
		return BoolValue(arg.kind == Null)
	case "isnotnull":
		return BoolValue(arg.kind != Null)
	case "isempty":
		return BoolValue(arg.toString() == "")
	default: // isnotempty
		return BoolValue(arg.toString() != "")
	}
}

// Kind implements Expr.
func (e Call) Kind() Kind { return functions[e.Name].kind }
