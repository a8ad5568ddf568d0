package resourcegraph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"defenderiot/pkg/fault"
)

func TestPage(t *testing.T) {
	a := startAzure(t, answers(200, `{"totalRecords":2,"count":1,"data":[`+alertRow(7)+`],"resultTruncated":"false","$skipToken":"next"}`,
		"Date", "Fri, 20 Nov 2026 10:00:00 GMT", headerRemaining, "14", headerResetsAfter, "00:00:05", headerLimitHit, "true"))
	var log bytes.Buffer
	c := a.client(func(s *Settings) { s.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	before := time.Now()
	for range 2 {
		p, err := c.Page(t.Context(), Query{Text: "the query", Subscriptions: []string{"s1", "s2"}, Top: 500, SkipToken: "token", AllowPartialScopes: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Rows) != 1 || string(p.Rows[0].Raw) != alertRow(7) || p.Total != 2 || p.SkipToken != "next" || !p.Partial ||
			!p.Date.Equal(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)) || p.Received.Before(before) {
			t.Errorf("got %+v", p)
		}
	}
	want := `{"options":{"$skipToken":"token","$top":500,"allowPartialScopes":true,"resultFormat":"objectArray"},"query":"the query","subscriptions":["s1","s2"]}`
	if got := string(a.requests[0]); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	h := a.headers[0]
	if h.Get("Authorization") != "Bearer token-number-1" || h.Get("Content-Type") != "application/json" || !strings.HasPrefix(h.Get("User-Agent"), "test azsdk-go-armresourcegraph/") {
		t.Errorf("headers %v", h)
	}
	if q := c.Quota(); q.Remaining != 14 || q.ResetsAfter <= 0 || q.Throttled != 0 {
		t.Errorf("quota %+v", q)
	}
	if c.Identity() != "client secret (client id the-client)" {
		t.Errorf("identity %q", c.Identity())
	}
	if got := strings.Count(log.String(), "a part of the subscriptions"); got != 1 {
		t.Errorf("the partial scope was logged %d times", got)
	}
	if a.tokens != 1 {
		t.Errorf("%d tokens", a.tokens)
	}
}

func TestPageOverHTTP2(t *testing.T) {
	var protocol string
	written := func(c *Client) bool {
		c.brake.mu.Lock()
		defer c.brake.mu.Unlock()
		return len(c.brake.slots) == 1 && !c.brake.slots[0].written.IsZero()
	}
	a := startAzure(t, nil, func(s *httptest.Server) { s.EnableHTTP2 = true })
	c := a.client()
	a.graph = func(w http.ResponseWriter, r *http.Request) {
		protocol = r.Proto
		for deadline := time.Now().Add(10 * time.Second); !written(c) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if !written(c) {
			t.Error("the brake does not know that the request was written")
		}
		io.WriteString(w, `{"data":[]}`)
	}
	if _, err := c.Page(t.Context(), Query{}); err != nil || protocol != "HTTP/2.0" {
		t.Errorf("%v over %s", err, protocol)
	}
}

func TestQueryLimits(t *testing.T) {
	a := startAzure(t, answers(200, `{"data":[]}`))
	c := a.client()
	for name, q := range map[string]Query{
		"both scopes":   {Subscriptions: []string{"s"}, ManagementGroups: []string{"m"}},
		"subscriptions": {Subscriptions: make([]string, MaxSubscriptions+1)},
		"top":           {Top: MaxTop + 1},
		"negative top":  {Top: -1},
	} {
		if _, err := c.Page(t.Context(), q); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := c.Page(t.Context(), Query{ManagementGroups: []string{"m"}}); err != nil {
		t.Error(err)
	}
	if want := `{"managementGroups":["m"],"options":{"$top":1000,"resultFormat":"objectArray"},"query":""}`; string(a.requests[0]) != want || a.queries() != 1 {
		t.Errorf("sent %s", a.requests)
	}
}

func TestSubscriptions(t *testing.T) {
	pages := map[string]string{
		"":   `{"totalRecords":3,"count":2,"data":[{"id":"/subscriptions/A","subscriptionId":"A","name":"x"},{"id":"/subscriptions/b","subscriptionId":"b","name":"y"}],"$skipToken":"p2"}`,
		"p2": `{"totalRecords":3,"count":1,"data":[{"id":"/subscriptions/c","subscriptionId":"c","name":"z"}]}`,
	}
	a := startAzure(t, nil)
	a.graph = func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Options struct {
				Token string `json:"$skipToken"`
			}
		}
		_ = json.Unmarshal(a.requests[len(a.requests)-1], &q)
		io.WriteString(w, pages[q.Options.Token])
	}
	c := a.client()
	got, err := c.Subscriptions(t.Context(), nil, nil)
	if err != nil || !slices.Equal(got, []string{"a", "b", "c"}) || a.queries() != 2 {
		t.Errorf("got %v, %v after %d requests", got, err, a.queries())
	}
	got, err = c.Subscriptions(t.Context(), make([]string, MaxSubscriptions+1), nil)
	if err != nil || !slices.Equal(got, []string{"a", "b", "c"}) || a.queries() != 6 {
		t.Errorf("two batches: got %v, %v after %d requests", got, err, a.queries())
	}
	for name, page := range map[string]string{
		"cut short":   `{"totalRecords":3,"data":[{"subscriptionId":"a"}]}`,
		"truncated":   `{"resultTruncated":"true","data":[{"subscriptionId":"a"}]}`,
		"no id":       `{"data":[{"name":"a"}]}`,
		"without end": `{"data":[{"subscriptionId":"a"}],"$skipToken":"same"}`,
	} {
		pages[""], pages["same"] = page, page
		var named *fault.Error
		if got, err := c.Subscriptions(t.Context(), nil, nil); !errors.As(err, &named) || named.Code != 302 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	var n int
	a := startAzure(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerRemaining, "11")
		if n++; n == 1 {
			w.Header().Set("Retry-After-Ms", "1")
			w.WriteHeader(429)
			return
		}
		io.WriteString(w, `{"data":[]}`)
	})
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	c := a.client(func(s *Settings) { s.Meter = provider.Meter("test") })
	if _, err := c.Page(t.Context(), Query{}); err != nil {
		t.Fatal(err)
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Gauge[int64]:
			got[m.Name] = d.DataPoints[0].Value
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				outcome, _ := p.Attributes.Value("outcome")
				got[m.Name+" "+outcome.AsString()] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range d.DataPoints {
				got[m.Name] += int64(p.Count)
			}
		}
	}
	for name, want := range map[string]int64{
		"resourcegraph.quota.remaining": 11, "resourcegraph.throttled ": 1, "resourcegraph.requests ok": 1,
		"resourcegraph.requests throttled": 1, "resourcegraph.request.duration": 2,
	} {
		if got[name] != want {
			t.Errorf("%s is %d, want %d (all: %v)", name, got[name], want, got)
		}
	}
}
