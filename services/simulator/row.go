package simulator

import (
	"strings"
	"time"

	"defenderiot/services/simulator/kql"
	"defenderiot/services/simulator/rawjson"
)

// alertType is the type of a Defender for IoT alert, as Resource Graph stores
// it.
const alertType = "microsoft.iotsecurity/locations/devicegroups/alerts"

// Row is a resource in Resource Graph's answer. Its bytes go out as they are:
// white space, key order, escapes and the digits of numbers included.
type Row struct {
	// JSON should be one object. Anything else is stored too, has no columns
	// for a query to find, and makes the answer that holds it invalid.
	JSON []byte
}

// ID returns the row's id in lower case, "" if it has none. Resource Graph
// does not keep the case of ids; only this form can be compared.
func (r Row) ID() string {
	id, _ := rawjson.StringMember(r.JSON, "id")
	return strings.ToLower(id)
}

// Start returns properties.startTimeUtc, cut to 100 ns; false where there is
// none or it is no time.
func (r Row) Start() (time.Time, bool) {
	t, ok := startOf(r.JSON)
	return t.Time(), ok
}

func startOf(json []byte) (kql.Ticks, bool) {
	properties, _ := rawjson.Member(json, "properties")
	text, ok := rawjson.StringMember(properties, "startTimeUtc")
	if !ok {
		return 0, false
	}
	return kql.ParseDateTime(text)
}

// entry is a stored row with the few columns that nearly every query asks
// for. An entry never changes: changing a row replaces its entry, so pages
// can be written without holding the store's lock.
type entry struct {
	json         []byte
	id           string // as written
	lowID        string
	kind         string // type, in lower case
	kindAsIs     string
	subscription string // in lower case
	start        kql.Ticks
	started      bool // has a start time
	seq          uint64
	twin         *entry // another row of the same id
}

func newEntry(json []byte, seq uint64) *entry {
	e := &entry{json: json, seq: seq}
	rawjson.Members(json, func(name, value []byte) bool {
		switch string(name) {
		case "id":
			e.id, _ = rawjson.String(value)
		case "type":
			e.kindAsIs, _ = rawjson.String(value)
		case "subscriptionId":
			e.subscription, _ = rawjson.String(value)
		}
		return true
	})
	e.lowID = strings.ToLower(e.id)
	e.kind = strings.ToLower(e.kindAsIs)
	if e.subscription == "" {
		e.subscription = subscriptionOf(e.lowID)
	}
	e.subscription = strings.ToLower(e.subscription)
	e.start, e.started = startOf(json)
	return e
}

func subscriptionOf(lowID string) string {
	rest, ok := strings.CutPrefix(lowID, "/subscriptions/")
	if !ok {
		return ""
	}
	sub, _, _ := strings.Cut(rest, "/")
	return sub
}

// Column implements kql.Row.
func (e *entry) Column(name string) kql.Value {
	switch name {
	case "id":
		return kql.StringValue(e.id)
	case "type":
		return kql.StringValue(e.kindAsIs)
	case "subscriptionId":
		return kql.StringValue(e.subscription)
	}
	raw, _ := rawjson.Member(e.json, name)
	if tableColumns[name] == kql.Dynamic {
		return kql.DynamicValue(raw)
	}
	s, _ := rawjson.String(raw)
	return kql.StringValue(s)
}

// tableColumns are the columns of every Resource Graph table that Microsoft's
// samples name. systemData is left out on purpose: whether iotsecurityresources
// has that column is not documented, so a query must not depend on it. It is
// part of the row all the same where the row holds it.
var tableColumns = map[string]kql.Kind{
	"id": kql.String, "name": kql.String, "type": kql.String, "tenantId": kql.String,
	"kind": kql.String, "location": kql.String, "resourceGroup": kql.String,
	"subscriptionId": kql.String, "managedBy": kql.String, "sku": kql.Dynamic,
	"plan": kql.Dynamic, "properties": kql.Dynamic, "tags": kql.Dynamic,
	"identity": kql.Dynamic, "zones": kql.Dynamic, "extendedLocation": kql.Dynamic,
}

const (
	alertTable     = "iotsecurityresources"
	containerTable = "resourcecontainers"
)

func schema(table string) (map[string]kql.Kind, bool) {
	switch strings.ToLower(table) {
	case alertTable, containerTable:
		return tableColumns, true
	}
	return nil, false
}
