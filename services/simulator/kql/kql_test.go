package kql_test

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator/kql"
	"defenderiot/services/simulator/rawjson"
)

// jsonRow is a row over JSON text.
type jsonRow string

func (r jsonRow) Column(name string) kql.Value {
	raw, _ := rawjson.Member([]byte(r), name)
	if columns[name] == kql.Dynamic {
		return kql.DynamicValue(raw)
	}
	s, _ := rawjson.String(raw)
	return kql.StringValue(s)
}

var columns = map[string]kql.Kind{
	"id": kql.String, "type": kql.String, "subscriptionId": kql.String, "properties": kql.Dynamic, "tags": kql.Dynamic,
}

func schema(table string) (map[string]kql.Kind, bool) {
	return columns, strings.EqualFold(table, "t")
}

var rows = []jsonRow{
	`{"id":"a","type":"T/Alerts","properties":{"startTimeUtc":"2026-11-20T10:00:00Z","status":"New","n":1,"f":1.0,"flag":true,"a b":{"$x":["p","q"]}}}`,
	`{"id":"b","type":"t/alerts","properties":{"startTimeUtc":"2026-11-20T10:00:00.5Z","status":"Closed","n":9007199254740993,"flag":false}}`,
	`{"id":"c","type":"t/other","properties":{"startTimeUtc":null,"status":""}}`,
	`{"id":"d","type":"t/alerts","properties":{"startTimeUtc":"garbage"},"tags":{}}`,
	`{"id":"e","type":"t/alerts","properties":null}`,
}

var now = kql.TicksOf(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))

func all() iter.Seq[kql.Row] {
	return func(yield func(kql.Row) bool) {
		for _, r := range rows {
			if !yield(r) {
				return
			}
		}
	}
}

func run(t *testing.T, query string) *kql.Result {
	t.Helper()
	q, err := kql.Parse(query, schema)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return q.Run(all(), now)
}

func found(r *kql.Result) string {
	var ids []string
	for _, rec := range r.Records {
		ids = append(ids, rec.Row.Column("id").Text())
	}
	return strings.Join(ids, "")
}

func TestWhere(t *testing.T) {
	tests := []struct{ cond, want string }{
		{`type =~ 'T/ALERTS'`, "abde"},
		{`type == 't/alerts'`, "bde"},
		{`type != "t/alerts"`, "ac"},
		{`type !~ 't/alerts'`, "c"},
		{`type in ('t/alerts', 't/other')`, "bcde"},
		{`type in~ ('T/alerts')`, "abde"},
		{`type !in ('t/alerts')`, "ac"},
		{`type !in~ ('t/alerts')`, "c"},
		{`todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z)`, "ab"},
		{`todatetime(properties.startTimeUtc) > datetime(2026-11-20T10:00:00.0000000Z)`, "b"},
		{`todatetime(properties.startTimeUtc) < datetime(2026-11-20T10:00:00.5)`, "a"},
		{`todatetime(properties.startTimeUtc) <= datetime('2026-11-20 10:00:00.5')`, "ab"},
		{`todatetime(properties.startTimeUtc) > ago(2h)`, "b"},
		{`todatetime(properties.startTimeUtc) > ago(30d) and properties.status == 'New'`, "a"},
		{`todatetime(properties.startTimeUtc) < now()`, "ab"},
		{`properties.startTimeUtc > ago(1d)`, "ab"},
		{`isnull(todatetime(properties.startTimeUtc))`, "cde"},
		{`isnotnull(todatetime(properties.startTimeUtc))`, "ab"},
		{`isnull(properties.status)`, "de"},
		{`isempty(properties.status)`, "cde"},
		{`isnotempty(tostring(properties.status))`, "ab"},
		{`isnull(id)`, ""},
		{`properties.status != 'Closed'`, "acde"}, // a null is not equal to anything
		{`properties.status == 'Closed'`, "b"},
		{`properties.n == 9007199254740993`, "b"},
		{`properties.n == 9007199254740992`, ""},
		{`properties.n >= 1`, "ab"},
		{`properties.n > -1.5`, "ab"},
		{`properties.f == 1`, "a"},
		{`properties.flag`, "a"},
		{`not(properties.flag)`, "b"}, // not(null) is null
		{`properties.flag == true`, "a"},
		{`properties['a b']['$x'][1] == 'q'`, "a"},
		{`properties["a b"].$x[2] == 'q'`, ""},
		{`tolower(type) == 't/alerts'`, "abde"},
		{`tostring(properties['a b']) == '{"$x":["p","q"]}'`, "a"},
		{`tostring(properties.flag) == 'True'`, "a"},
		{`(id == 'a' or id == 'b') and not(id == 'b')`, "a"},
		{`id == 'a' or id == 'b' and id == 'c'`, "a"},
		{`true`, "abcde"},
		{`isnull(datetime(null))`, "abcde"},
		{`id == 'a' // a comment`, "a"},
		{`id == @'a'`, "a"},
		{`id == "\u0061"`, "!"},
	}
	for _, tt := range tests {
		t.Run(tt.cond, func(t *testing.T) {
			if tt.want == "!" {
				if _, err := kql.Parse("t | where "+tt.cond, schema); err == nil {
					t.Fatal("was accepted")
				}
				return
			}
			if got := found(run(t, "t\n| where "+tt.cond)); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStages(t *testing.T) {
	tests := []struct{ stages, want string }{
		{`order by id asc`, "abcde"},
		{`order by id`, "edcba"}, // the default is desc
		{`sort by todatetime(properties.startTimeUtc) asc, id desc`, "edcab"},
		{`order by todatetime(properties.startTimeUtc), id asc`, "bacde"},
		{`take 2`, "ab"},
		{`where id != 'a' | limit 2`, "bc"},
		{`order by id | take 1`, "e"},
		{`extend s = todatetime(properties.startTimeUtc) | where s > datetime(2026-11-20T10:00:00Z)`, "b"},
		{`extend x = id, y = type | where x == 'a'`, "a"},
		{`project id, properties.status | where properties_status == 'New'`, "a"},
		{`project id, s = properties.status | order by tostring(s) | take 1`, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.stages, func(t *testing.T) {
			if got := found(run(t, "T | "+tt.stages)); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	for query, column := range map[string]string{
		`t | where type =~ 't/alerts' | count`:                 "Count",
		`t | where type =~ 't/alerts' | summarize count()`:     "count_",
		`t | where type =~ 't/alerts' | summarize N = count()`: "N",
	} {
		r := run(t, query)
		if len(r.Records) != 1 || !slices.Equal(r.Columns, []string{column}) {
			t.Fatalf("%s: %+v", query, r)
		}
		if got := string(r.Records[0].Added[column].AppendJSON(nil)); got != "4" {
			t.Errorf("%s: %s, want 4", query, got)
		}
	}
}

func TestResultShape(t *testing.T) {
	if r := run(t, `t | extend s = now() | take 3`); r.Columns != nil || !slices.Equal(r.Extended, []string{"s"}) || !r.Limited {
		t.Errorf("%+v", r)
	}
	if r := run(t, `t | project id, type`); r.HasColumn("properties", true) || !r.HasColumn("id", true) || r.Limited {
		t.Errorf("%+v", r)
	}
}

func TestMistakes(t *testing.T) {
	for _, query := range []string{
		``, `| where true`, `t where true`, `t |`, `t | where`, `t | where id ==`, `t | where id == 'a`, `t | where (id == 'a'`,
		`t | mv-expand properties`, `t | join x`, `t | union x`, `t | where foo(id) == 'a'`, `t | where unknown == 'a'`,
		`t | where id`, `t | where id > 5`, `t | where id == datetime(2026-11-20)`, `t | where id < 'b'`,
		`t | where datetime(yesterday) > now()`, `t | where todatetime(id, id) > now()`, `t | where id.x == 'a'`,
		`t | order by properties.startTimeUtc asc`, `t | order id asc`, `t | take x`, `t | project id == 'a'`,
		`t | project type | where id == 'a'`, `t | summarize sum(id)`, `t | summarize count(id)`, `t | where id in ()`,
		`t | where id == 'a' #`, `t | where ago(5) > now()`, `t | where properties..x == 1`, `t | where 1q > 2`,
		`t | where id has 'a'`, `t | where ` + strings.Repeat("(", 5000) + "true",
	} {
		_, err := kql.Parse(query, schema)
		var parse *kql.ParseError
		if !errors.As(err, &parse) {
			t.Errorf("%.60q: error %v, want a ParseError", query, err)
		}
	}
	_, err := kql.Parse("resources | take 1", schema)
	var table *kql.UnknownTableError
	if !errors.As(err, &table) || table.Table != "resources" {
		t.Errorf("error %v, want an UnknownTableError", err)
	}
}

func TestMistakeIsLocated(t *testing.T) {
	_, err := kql.Parse("t\n| where id ==\n| count", schema)
	var parse *kql.ParseError
	if !errors.As(err, &parse) || parse.Line != 3 || parse.Column != 0 || parse.Token != "|" {
		t.Errorf("error %+v", err)
	}
}

func TestParseDateTime(t *testing.T) {
	tests := []struct{ text, want string }{
		{"2026-11-20T10:00:00Z", "2026-11-20T10:00:00.0000000Z"},
		{"2026-11-20T10:00:00.1Z", "2026-11-20T10:00:00.1000000Z"},
		{"2020-04-27T21:53:29.0928001Z", "2020-04-27T21:53:29.0928001Z"},
		{"2026-11-20T10:00:00.123456789Z", "2026-11-20T10:00:00.1234567Z"},
		{"2026-11-20T10:00:00", "2026-11-20T10:00:00.0000000Z"},
		{"2026-11-20 10:00:00+02:00", "2026-11-20T08:00:00.0000000Z"},
		{"2026-11-20T10:00-00:30", "2026-11-20T10:30:00.0000000Z"},
		{"2026-11-20", "2026-11-20T00:00:00.0000000Z"},
		{"0001-01-01T00:00:00Z", "0001-01-01T00:00:00.0000000Z"},
		{"9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z"},
		{"", ""}, {"yesterday", ""}, {"2026-02-30", ""}, {"2026-13-01", ""}, {"2026-11-20T25:00:00Z", ""},
		{"2026-11-20T10:00:00.Z", ""}, {"2026-11-20T10:00:00X", ""}, {"2026-11-20T10", ""}, {"0000-01-01", ""},
	}
	for _, tt := range tests {
		got := ""
		if ticks, ok := kql.ParseDateTime(tt.text); ok {
			got = ticks.String()
		}
		if got != tt.want {
			t.Errorf("ParseDateTime(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

// FuzzParse: no text may crash the parser or the evaluation of what it
// accepts.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`iotsecurityresources | where type =~ 'x' | where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z) | order by todatetime(properties.startTimeUtc) asc, id asc`,
		`t | extend a = properties.b['c'][0] | project a, x = tostring(a) | order by x | take 3 | count`,
		`t | where id in~ ('a', "b") and not(isnull(tags)) or properties.n >= -1.5 | summarize n = count()`,
		`t | where ago(30d) < now(1h) and type !in ('a') // end`,
		"t | where (((", "t | where '\\", "t | where @'''", "t | take 99999999999999999999", `t | where datetime(`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := kql.Parse(text, func(string) (map[string]kql.Kind, bool) { return columns, true })
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		r := q.Run(all(), now)
		if len(r.Records) > len(rows) {
			t.Fatalf("%d records from %d rows", len(r.Records), len(rows))
		}
	})
}

// FuzzParseDateTime holds the reading of times against the standard library's.
func FuzzParseDateTime(f *testing.F) {
	for _, seed := range []string{"2026-11-20T10:00:00Z", "2020-04-27T21:53:29.0928001Z", "2026-11-20T10:00:00+02:00", "0001-01-01T00:00:00-14:00", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := kql.ParseDateTime(text)
		if ok {
			if again, ok := kql.ParseDateTime(got.String()); !ok || again != got {
				t.Fatalf("%q: %s is read as %s", text, got, again)
			}
		}
		want, err := time.Parse(time.RFC3339Nano, text)
		if err == nil && ok && kql.TicksOf(want) != got {
			t.Fatalf("%q: %s, want %s", text, got, want)
		}
	})
}
