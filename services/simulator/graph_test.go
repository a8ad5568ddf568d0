package simulator_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"defenderiot/services/simulator"
)

func TestWindowAndOrder(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(
		alert(subA, 4, `"2026-11-20T10:00:01.0000001Z"`),
		alert(subA, 3, `"2026-11-20T10:00:01Z"`),
		alert(subA, 2, `"2026-11-20T10:00:01.0Z"`), // the same instant
		alert(subA, 1, `"2026-11-20T09:59:59.9999999Z"`),
		alert(subA, 5, `"2026-11-20T10:00:00Z"`),
		alert(subA, 6, `null`),
		alert(subA, 7, `"noon"`),
		alert(subA, 8, `"2026-11-20T13:00:01+01:00"`),
	)
	numbers := func(query string) string {
		var b strings.Builder
		for _, id := range ids(readAll(t, a.good(t), ask{query: query})...) {
			b.WriteByte(id[len(id)-1])
		}
		return b.String()
	}
	bounded := strings.Replace(steadyQuery, "| order", "| where todatetime(properties.startTimeUtc) < datetime(2026-11-20T10:00:01.0000001Z)\n| order", 1)
	for name, tt := range map[string]struct{ query, want string }{
		"steady":               {steadyQuery, "52348"},
		"bounded":              {bounded, "523"},
		"bounded in one where": {strings.Replace(bounded, "\n| where todatetime(properties.startTimeUtc) <", " and todatetime(properties.startTimeUtc) <", 1), "523"},
		"evaluated":            {strings.Replace(bounded, "=~", "==", 1), "523"},
		"no start":             {nullQuery, "67"},
		"empty window":         {strings.Replace(bounded, ">= datetime(2026", ">= datetime(2027", 1), ""},
		"all of the type":      {"iotsecurityresources | where type =~ 'microsoft.iotsecurity/locations/devicegroups/alerts' | order by todatetime(properties.startTimeUtc) asc, id asc", "67152348"},
		"newest first":         {strings.Replace(steadyQuery, "asc, id asc", "desc, id desc", 1), "84325"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := numbers(tt.query); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// The index must answer exactly what the evaluation of the query answers.
func TestIndexAgreesWithEvaluation(t *testing.T) {
	a := newAzure(t)
	g := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 7, Subscriptions: []string{subA, subB}, Start: epoch, Spread: time.Hour})
	rows := g.Rows(700)
	a.graph.Add(rows[:300]...)
	a.graph.Add(rows[300:]...)
	a.graph.Add(g.Odd(simulator.NullStart), g.Odd(simulator.NoStart), g.Odd(simulator.GarbageStart))
	for _, row := range rows[100:140] {
		a.graph.Change(row.ID(), func(r simulator.Row) simulator.Row { return simulator.Changed(r, epoch) })
	}
	for _, row := range rows[500:520] {
		if !a.graph.Delete(strings.ToUpper(row.ID())) {
			t.Fatal("nothing deleted")
		}
	}
	client := a.good(t)
	for _, scope := range [][]string{nil, {subA}, {subA, subB}} {
		fast := readAll(t, client, ask{query: steadyQuery, subs: scope, top: 100})
		slow := readAll(t, client, ask{query: strings.Replace(steadyQuery, "=~", "==", 1), subs: scope, top: 100})
		if got, want := ids(fast...), ids(slow...); !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("scope %v: the index gives %d rows, the evaluation %d", scope, len(got), len(want))
		}
		if fast[0].TotalRecords != slow[0].TotalRecords {
			t.Errorf("scope %v: totalRecords %d and %d", scope, fast[0].TotalRecords, slow[0].TotalRecords)
		}
	}
	if got := len(ids(readAll(t, client, ask{query: nullQuery})...)); got != 3 {
		t.Errorf("%d rows without a start, want 3", got)
	}
	if got := a.graph.Len(); got != 683 || len(a.graph.Rows()) != got {
		t.Errorf("%d rows, want 683", got)
	}
}

func TestPagesShift(t *testing.T) {
	a := newAzure(t)
	rows := alerts(subA, 30)
	a.graph.Add(rows...)
	client := a.good(t)
	page := func(token string) answer {
		p, err := resources(t.Context(), client, ask{query: steadyQuery, top: 10, token: token})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := page("")
	a.graph.Delete(rows[0].ID())
	second := page(first.SkipToken)
	if got, want := ids(second)[0], rows[11].ID(); got != want {
		t.Errorf("behind a deletion the page begins with %s, want %s: one row is missed", got, want)
	}
	a.graph.Add(rows[0])
	a.graph.Add(alert(subA, 99, `"2026-11-20T10:00:00.5Z"`))
	third := page(first.SkipToken)
	if got, want := ids(third)[0], rows[9].ID(); got != want {
		t.Errorf("behind an insertion the page begins with %s, want %s: one row comes twice", got, want)
	}
}

func TestTokenBelongsToQueryAndScope(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 30)...)
	client := a.good(t)
	first, err := resources(t.Context(), client, ask{query: steadyQuery, top: 10, subs: []string{subA}})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []ask{
		{query: steadyQuery, token: first.SkipToken},
		{query: nullQuery, token: first.SkipToken, subs: []string{subA}},
	} {
		if _, err := resources(t.Context(), client, q); err == nil {
			t.Errorf("a foreign token was accepted for %+v", q)
		}
	}
}

func TestNoTokenWithoutIDOrWithTake(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 30)...)
	client := a.good(t)
	for query, want := range map[string]string{
		"iotsecurityresources | project name":                "true",
		"iotsecurityresources | take 20":                     "true",
		"iotsecurityresources | take 5":                      "false",
		"iotsecurityresources | project id, name":            "token",
		"iotsecurityresources | extend n = properties.n":     "token",
		"iotsecurityresources | summarize n = count()":       "false",
		"iotsecurityresources | extend id = tostring(now())": "token",
	} {
		p, err := resources(t.Context(), client, ask{query: query, top: 10})
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		got := p.ResultTruncated
		if p.SkipToken != "" {
			got = "token"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	p, err := resources(t.Context(), client, ask{query: "iotsecurityresources | extend s = todatetime(properties.startTimeUtc) | order by id asc | project id, n = properties.n, s", top: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"/subscriptions/` + subA + `/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/alerts/00000000","n":9007199254740993,"s":"2026-11-20T10:00:00.0000000Z"}`
	if got := string(p.Data[0]); got != want {
		t.Errorf("projected\n%s\nwant\n%s", got, want)
	}
}

func TestScope(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 3)...)
	a.graph.Add(alerts(subB, 4)...)
	a.graph.AddSubscription(subA, "Plant A", "plants")
	a.graph.AddSubscription(subB, "Plant B", "plants", "b")
	client := a.good(t)
	count := func(q ask) int {
		q.query = steadyQuery
		return len(ids(readAll(t, client, q)...))
	}
	check := func(name string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d rows, want %d", name, got, want)
		}
	}
	check("all", count(ask{}), 7)
	check("one", count(ask{subs: []string{strings.ToUpper(subA)}}), 3)
	check("both", count(ask{subs: []string{subA, subB}}), 7)
	check("group", count(ask{groups: []string{"Plants"}}), 7)
	check("small group", count(ask{groups: []string{"b"}}), 4)
	a.graph.Hide(subB, true)
	check("silently partial", count(ask{subs: []string{subA, subB}}), 3)
	check("all that is readable", count(ask{}), 3)
	coverage := readAll(t, client, ask{query: coverageQuery})
	if got := fmt.Sprintf("%s", coverage[0].Data); got != `[{"subscriptionId":"`+subA+`","name":"Plant A"}]` {
		t.Errorf("coverage %s", got)
	}
	a.graph.Hide(subB, false)
	check("readable again", count(ask{}), 7)
}

func TestLateRow(t *testing.T) {
	a := newAzure(t)
	row := alert(subA, 1, `"2026-11-20T10:00:00Z"`)
	a.graph.AddLate(row, time.Now().Add(time.Hour))
	if a.graph.Len() != 0 || a.graph.Delete(row.ID()) {
		t.Fatal("the row is there before its time")
	}
	a.graph.SetClockOffset(2 * time.Hour)
	a.graph.AddSubscription(subA, "A")
	pages := readAll(t, a.good(t), ask{query: steadyQuery})
	if len(ids(pages...)) != 1 {
		t.Error("the row did not appear")
	}
	date, err := http.ParseTime(pages[0].header.Get("Date"))
	if err != nil || date.Before(time.Now().Add(90*time.Minute)) {
		t.Errorf("Date is %v, want the graph's clock", date)
	}
}

func TestQuota(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 1)...)
	a.graph.SetQuota(simulator.Quota{Limit: 3, Window: time.Hour})
	client := a.good(t)
	for want := range 3 {
		p, err := resources(t.Context(), client, ask{query: steadyQuery})
		if err != nil {
			t.Fatal(err)
		}
		left, resets := p.header.Get("x-ms-user-quota-remaining"), p.header.Get("x-ms-user-quota-resets-after")
		if left != fmt.Sprint(2-want) || (resets != "01:00:00" && !strings.HasPrefix(resets, "00:59:")) {
			t.Errorf("quota headers %q and %q", left, resets)
		}
	}
	refused := func() *azcore.ResponseError {
		t.Helper()
		_, err := resources(t.Context(), client, ask{query: steadyQuery})
		var resp *azcore.ResponseError
		if !errors.As(err, &resp) || resp.StatusCode != 429 || resp.ErrorCode != "RateLimiting" {
			t.Fatalf("error %v, want 429 RateLimiting", err)
		}
		return resp
	}
	if h := refused().RawResponse.Header; h.Get("Retry-After") != "" || h.Get("x-ms-user-quota-remaining") != "0" {
		t.Errorf("headers of the 429: %v", h)
	}
	if s := a.graph.Stats(); s.Throttled != 1 || s.Queries != 4 || s.Rows != 3 {
		t.Errorf("stats %+v", s)
	}
	a.graph.SetQuota(simulator.Quota{Limit: 1, Window: 50 * time.Millisecond, RetryAfter: true})
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := resources(t.Context(), client, ask{query: steadyQuery}); err == nil && time.Now().Before(deadline) {
			continue // the window ended in between
		}
		break
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := resources(t.Context(), client, ask{query: steadyQuery}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the window never ended: %v", err)
		}
	}
}

// BenchmarkPages reads 100,000 alerts in pages of 1000 over TLS, without
// decoding them.
func BenchmarkPages(b *testing.B) {
	a := newAzure(b)
	const n = 100_000
	a.graph.Add(simulator.NewGenerator(simulator.GeneratorOptions{Start: epoch, Spread: time.Hour}).Rows(n)...)
	token := tokenOf(b, a)
	for b.Loop() {
		skip := ""
		for {
			body := fmt.Sprintf(`{"query":%q,"options":{"$top":1000,"$skipToken":%q}}`, steadyQuery, skip)
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, a.server.URL+"/providers/Microsoft.ResourceGraph/resources?api-version=2024-04-01", strings.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := a.server.Client().Do(req)
			if err != nil {
				b.Fatal(err)
			}
			page, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 {
				b.Fatalf("%d %v %.300s", resp.StatusCode, err, page)
			}
			_, after, found := strings.Cut(string(page[len(page)-200:]), `"$skipToken":"`)
			if !found {
				break
			}
			skip, _, _ = strings.Cut(after, `"`)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func tokenOf(t testing.TB, a *azure) string {
	t.Helper()
	resp, err := a.server.Client().Post(a.server.URL+"/"+tenant+"/oauth2/v2.0/token", "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=client_credentials&client_id="+clientID+"&client_secret="+password+"&scope="+audience+"/.default"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(body), `"access_token":"`)
	if !ok {
		t.Fatalf("no token: %s", body)
	}
	token, _, _ := strings.Cut(after, `"`)
	return token
}
