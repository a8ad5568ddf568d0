// Package kql evaluates the part of the Kusto Query Language that callers of
// Azure Resource Graph use to read alerts.
//
// A query is parsed and bound against a table's columns first, so that a
// mistake is reported before any row is looked at, as the service does:
//
//	table
//	| where EXPR
//	| extend a = EXPR, ...
//	| order by EXPR [asc|desc], ...     (default desc; asc puts nulls first)
//	| project a, b = EXPR, ...
//	| take N                            (also: limit N)
//	| count
//	| summarize [n =] count()
//
// Expressions: and, or, not(), ==, !=, =~, !~, <, <=, >, >=, in (...),
// in~ (...), !in (...), !in~ (...), parentheses, dotted and bracketed paths
// into dynamic columns, string, number, timespan, bool and datetime(...)
// literals, ago, now, todatetime, tostring, tolower, isnull, isnotnull,
// isempty, isnotempty.
//
// Anything else is a *ParseError, and so is what Kusto refuses by type: an
// order by of a dynamic value, a string held against a datetime. The aim is
// that a query accepted here is accepted by the service and gives the same
// rows; a valid query that is refused here is the lesser evil.
//
// Source of the semantics (nulls, default order, coercion of dynamic values):
// https://learn.microsoft.com/azure/kusto/query.
package kql
