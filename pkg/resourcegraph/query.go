package resourcegraph

import (
	"strings"
	"time"
)

// AlertType is the resource type of a Defender for IoT alert as Resource Graph stores it.
const AlertType = "microsoft.iotsecurity/locations/devicegroups/alerts"

// MaxTop is the most rows that one answer holds (Resource Graph, "Working with large result sets").
const MaxTop = 1000

// MaxSubscriptions is how many subscriptions one query should name at most: the service takes fewer
// than 1,000, Microsoft's throttling guide asks for groups below 300.
const MaxSubscriptions = 300

// start is how the queries read an alert's start: properties are dynamic columns, which Resource Graph
// neither compares nor sorts as times without the cast.
const start = "todatetime(properties.startTimeUtc)"

// ticks is KQL's datetime resolution; its literals carry seven fractional digits.
const (
	tick       = 100 * time.Nanosecond
	tickLayout = "2006-01-02T15:04:05.0000000Z"
)

// Query is one request for a page. The next page is asked for with the same Text and scopes plus the
// SkipToken of the page before; anything else changes the result under the token.
type Query struct {
	// Text is the KQL query. It must return `id` as a column and order by something unique, or pages
	// repeat and lose rows.
	Text string
	// Subscriptions (at most [MaxSubscriptions]) or ManagementGroups (ids, not display names) limit
	// the scope; both at once is an error. Neither: everything that the principal can read.
	Subscriptions    []string
	ManagementGroups []string
	// Top is the page size, 1 to [MaxTop]; 0 means MaxTop.
	Top int
	// SkipToken continues a result; empty asks for the first page.
	SkipToken string
	// AllowPartialScopes takes an answer over the first subscriptions of a scope that holds more than
	// the service covers, instead of an error.
	AllowPartialScopes bool
}

// WindowQuery returns the query for the alerts whose start is in [from, to), oldest first, equal starts
// by id. A zero to means no upper bound. KQL knows 100 ns: from is rounded down and to up, so that
// rounding never leaves a row out.
func WindowQuery(from, to time.Time) string {
	var b strings.Builder
	b.WriteString(alerts)
	b.WriteString("\n| where " + start + " >= " + datetime(from.Truncate(tick)))
	if !to.IsZero() {
		up := to.Truncate(tick)
		if up.Before(to) {
			up = up.Add(tick)
		}
		b.WriteString(" and " + start + " < " + datetime(up))
	}
	b.WriteString("\n| order by " + start + " asc, id asc")
	return b.String()
}

// NullStartQuery returns the query for the alerts without a readable start, by id. No window finds
// them: a comparison with null is false.
func NullStartQuery() string {
	return alerts + "\n| where isnull(" + start + ")\n| order by id asc"
}

const alerts = "iotsecurityresources\n| where type =~ '" + AlertType + "'"

func datetime(t time.Time) string {
	return "datetime(" + t.UTC().Format(tickLayout) + ")"
}
