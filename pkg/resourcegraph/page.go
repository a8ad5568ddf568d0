package resourcegraph

import (
	"encoding/json"
	"time"
)

// Row is one row of a page.
type Row struct {
	// Raw is the row as Azure sent it, byte for byte. All rows of a page share one array: copy what
	// outlives the page.
	Raw json.RawMessage
	// ID is the row's id in lower case, because Azure changes an id's letter case between answers;
	// empty if Err is set.
	ID string
	// Subscription is the row's subscriptionId in lower case, empty if it has none.
	Subscription string
	// Start is properties.startTimeUtc in UTC; zero if there is no usable one.
	Start time.Time
	// Err says why this row cannot be used: it is no object or has no usable id. It is
	// fault.Permanent and an *Unusable: the row becomes a dead letter, the rest of the page is fine.
	Err error
}

// Page is one answer of Resource Graph.
type Page struct {
	Rows []Row
	// Count is the answer's own number of rows in it, len(Rows) if it has none.
	Count int64
	// Total is how many rows the query has over all pages, -1 if the answer does not say.
	Total int64
	// Truncated means that rows are missing and no token leads to them.
	Truncated bool
	// SkipToken is the only sign that there are more pages: not empty means go on. It lives in memory;
	// how long Azure honours it is not documented.
	SkipToken string
	// Partial means that the scope holds more subscriptions than Azure looked at.
	Partial bool
	// Date is the answer's Date header, zero if there is none.
	Date time.Time
	// Received is when the answer was complete here.
	Received time.Time
	// Bytes is the size of the answer after decompression.
	Bytes int
}
