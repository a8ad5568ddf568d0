package simulator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resourcegraph/armresourcegraph"

	"defenderiot/services/simulator"
)

const (
	tenant   = "00000000-0000-0000-0000-0000000000aa"
	clientID = "00000000-0000-0000-0000-0000000000cc"
	password = "not-a-real-secret"
	audience = "https://management.core.windows.net/"
	subA     = "20ff7fc3-e762-44dd-bd96-b71116dcdc23"
	subB     = "20ff7fc3-e762-44dd-bd96-b71116dcdc24"

	steadyQuery = `iotsecurityresources
| where type =~ 'microsoft.iotsecurity/locations/devicegroups/alerts'
| where todatetime(properties.startTimeUtc) >= datetime(2026-11-20T10:00:00.0000000Z)
| order by todatetime(properties.startTimeUtc) asc, id asc`
	nullQuery = `iotsecurityresources | where type =~ 'microsoft.iotsecurity/locations/devicegroups/alerts'
| where isnull(todatetime(properties.startTimeUtc)) | order by id asc`
	coverageQuery = `resourcecontainers | where type =~ 'microsoft.resources/subscriptions' | project subscriptionId, name | order by subscriptionId asc`
)

var epoch = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// azure is a login endpoint and a graph behind TLS.
type azure struct {
	login  *simulator.Login
	graph  *simulator.Graph
	server *httptest.Server
}

func newAzure(t testing.TB) *azure {
	t.Helper()
	a := &azure{login: simulator.NewLogin(tenant, audience, simulator.App{ClientID: clientID, Secret: password})}
	a.graph = simulator.NewGraph(a.login)
	a.server = httptest.NewTLSServer(simulator.Azure(a.login, a.graph))
	t.Cleanup(a.server.Close)
	return a
}

type credentials struct{ tenant, client, secret string }

// client makes the real SDK client; the Azure SDK's own retries are off.
func (a *azure) client(t testing.TB, c credentials) *armresourcegraph.Client {
	t.Helper()
	options := azcore.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: a.server.URL,
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Endpoint: a.server.URL, Audience: audience},
			},
		},
		Transport: a.server.Client(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
	cred, err := azidentity.NewClientSecretCredential(c.tenant, c.client, c.secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: options, DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := armresourcegraph.NewClient(cred, &arm.ClientOptions{ClientOptions: options, DisableRPRegistration: true})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (a *azure) good(t testing.TB) *armresourcegraph.Client {
	return a.client(t, credentials{tenant, clientID, password})
}

// answer is a page with its rows as sent.
type answer struct {
	TotalRecords    int64             `json:"totalRecords"`
	Count           int64             `json:"count"`
	Data            []json.RawMessage `json:"data"`
	ResultTruncated string            `json:"resultTruncated"`
	SkipToken       string            `json:"$skipToken"`
	header          http.Header
}

type ask struct {
	query, token string
	top          int32
	subs, groups []string
}

func resources(ctx context.Context, c *armresourcegraph.Client, q ask) (answer, error) {
	format := armresourcegraph.ResultFormatObjectArray
	req := armresourcegraph.QueryRequest{Query: &q.query, Options: &armresourcegraph.QueryRequestOptions{ResultFormat: &format}}
	if q.token != "" {
		req.Options.SkipToken = &q.token
	}
	if q.top != 0 {
		req.Options.Top = &q.top
	}
	for _, s := range q.subs {
		req.Subscriptions = append(req.Subscriptions, &s)
	}
	for _, g := range q.groups {
		req.ManagementGroups = append(req.ManagementGroups, &g)
	}
	var raw *http.Response
	if _, err := c.Resources(policy.WithCaptureResponse(ctx, &raw), req, nil); err != nil {
		return answer{}, err
	}
	body, err := runtime.Payload(raw)
	if err != nil {
		return answer{}, err
	}
	a := answer{header: raw.Header}
	return a, json.Unmarshal(body, &a)
}

// readAll pages to the end.
func readAll(t testing.TB, c *armresourcegraph.Client, q ask) []answer {
	t.Helper()
	var pages []answer
	for {
		a, err := resources(t.Context(), c, q)
		if err != nil {
			t.Fatalf("page %d: %v", len(pages), err)
		}
		if int(a.Count) != len(a.Data) {
			t.Fatalf("page %d: count %d, rows %d", len(pages), a.Count, len(a.Data))
		}
		pages = append(pages, a)
		if q.token = a.SkipToken; q.token == "" {
			return pages
		}
	}
}

// alert makes a row by hand.
func alert(sub string, n int, start string) simulator.Row {
	id := fmt.Sprintf("/subscriptions/%s/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/alerts/%08d", sub, n)
	return simulator.Row{JSON: fmt.Appendf(nil, `{"id":"%s","name":"%08d","type":"microsoft.iotsecurity/locations/devicegroups/alerts",`+
		`"subscriptionId":"%s","properties":{"startTimeUtc":%s,"severity":"High","n":9007199254740993}}`, id, n, sub, start)}
}

// alerts makes n rows, one a second from epoch on.
func alerts(sub string, n int) []simulator.Row {
	rows := make([]simulator.Row, n)
	for i := range rows {
		rows[i] = alert(sub, i, `"`+epoch.Add(time.Duration(i)*time.Second).Format(time.RFC3339)+`"`)
	}
	return rows
}

func ids(pages ...answer) []string {
	var list []string
	for _, p := range pages {
		for _, row := range p.Data {
			list = append(list, simulator.Row{JSON: row}.ID())
		}
	}
	return list
}

func TestRealClientPagesToTheEnd(t *testing.T) {
	a := newAzure(t)
	rows := alerts(subA, 2500)
	a.graph.Add(rows...)
	pages := readAll(t, a.good(t), ask{query: steadyQuery})
	if len(pages) != 3 || len(pages[0].Data) != 1000 || len(pages[2].Data) != 500 {
		t.Fatalf("%d pages, want 1000, 1000 and 500 rows", len(pages))
	}
	n := 0
	for _, p := range pages {
		if p.TotalRecords != 2500 || p.ResultTruncated != "false" {
			t.Errorf("totalRecords %d, resultTruncated %q", p.TotalRecords, p.ResultTruncated)
		}
		for _, row := range p.Data {
			if string(row) != string(rows[n].JSON) {
				t.Fatalf("row %d is not as stored:\n%s\n%s", n, row, rows[n].JSON)
			}
			n++
		}
	}
	if got := a.login.Issued(); got != 1 {
		t.Errorf("%d tokens issued, want 1", got)
	}
	reqs := a.graph.Requests()
	if len(reqs) != 3 || reqs[2].SkipToken != pages[1].SkipToken || reqs[2].Rows != 500 || reqs[0].Principal != clientID {
		t.Errorf("requests: %+v", reqs)
	}
}

func TestLoginErrors(t *testing.T) {
	a := newAzure(t)
	expired := simulator.App{ClientID: "00000000-0000-0000-0000-0000000000ee", Secret: password, SecretExpired: true}
	a.login.SetApp(expired)
	tests := []struct {
		name string
		c    credentials
		code string
	}{
		{"wrong secret", credentials{tenant, clientID, "wrong"}, "AADSTS7000215"},
		{"expired secret", credentials{tenant, expired.ClientID, password}, "AADSTS7000222"},
		{"unknown tenant", credentials{"00000000-0000-0000-0000-0000000000ab", clientID, password}, "AADSTS90002"},
		{"malformed tenant", credentials{"contoso", clientID, password}, "AADSTS900023"},
		{"unknown client", credentials{tenant, "00000000-0000-0000-0000-0000000000cd", password}, "AADSTS700016"},
		{"empty client", credentials{tenant, "", password}, "AADSTS90014"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := resources(t.Context(), a.client(t, tt.c), ask{query: steadyQuery})
			var failed *azidentity.AuthenticationFailedError
			if !errors.As(err, &failed) {
				t.Fatalf("error is %T %v, want an AuthenticationFailedError", err, err)
			}
			if !strings.Contains(err.Error(), tt.code) {
				t.Errorf("error lacks %s: %v", tt.code, err)
			}
		})
	}
}

func TestQueryErrorsAsResponseError(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 3)...)
	a.graph.AddSubscription(subB, "closed")
	a.graph.Hide(subB, true)
	tests := []struct {
		name         string
		q            ask
		limit        int
		status       int
		code, detail string
	}{
		{"syntax", ask{query: "iotsecurityresources | where"}, 0, 400, "BadRequest", "ParserFailure"},
		{"operator", ask{query: "iotsecurityresources | mv-expand x"}, 0, 400, "BadRequest", "InvalidQuery"},
		{"table", ask{query: "appserviceresources"}, 0, 400, "BadRequest", "DisallowedLogicalTableName"},
		{"none readable", ask{query: steadyQuery, subs: []string{subB}}, 0, 403, "AccessDenied", "AccessDenied"},
		{"unknown subscription", ask{query: steadyQuery, subs: []string{"x"}}, 0, 403, "AccessDenied", "AccessDenied"},
		{"foreign token", ask{query: steadyQuery, token: "eyJubyI6MSwiY3giOiJ4In0="}, 0, 400, "BadRequest", "InvalidSkipToken"},
		{"too large", ask{query: steadyQuery}, 100, 400, "BadRequest", "ResponsePayloadTooLarge"},
		{"two scopes", ask{query: steadyQuery, subs: []string{subA}, groups: []string{"g"}}, 0, 400, "BadRequest", "InvalidScope"},
	}
	client := a.good(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a.graph.SetResponseLimit(tt.limit)
			_, err := resources(t.Context(), client, tt.q)
			var resp *azcore.ResponseError
			if !errors.As(err, &resp) {
				t.Fatalf("error is %T %v, want a ResponseError", err, err)
			}
			body, readErr := runtime.Payload(resp.RawResponse)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if resp.StatusCode != tt.status || resp.ErrorCode != tt.code || !strings.Contains(string(body), `"code":"`+tt.detail+`"`) {
				t.Errorf("got %d %s %s; want %d %s with %s", resp.StatusCode, resp.ErrorCode, body, tt.status, tt.code, tt.detail)
			}
		})
	}
}

func TestExpiredTokenIsRefused(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 1)...)
	client := a.good(t)
	readAll(t, client, ask{query: steadyQuery})
	a.login.ExpireTokens()
	_, err := resources(t.Context(), client, ask{query: steadyQuery})
	var resp *azcore.ResponseError
	if !errors.As(err, &resp) || resp.StatusCode != 401 || resp.ErrorCode != "ExpiredAuthenticationToken" {
		t.Fatalf("got %v, want 401 ExpiredAuthenticationToken", err)
	}
	readAll(t, a.good(t), ask{query: steadyQuery})
}

func TestClaimsChallengeIsAnsweredByANewToken(t *testing.T) {
	a := newAzure(t)
	a.graph.Add(alerts(subA, 1)...)
	a.graph.Fail(simulator.ClaimsChallenge())
	readAll(t, a.good(t), ask{query: steadyQuery})
	if got := a.login.Issued(); got != 2 {
		t.Errorf("%d tokens issued, want 2", got)
	}
}

func TestContentTypeMustBeJSON(t *testing.T) {
	a := newAzure(t)
	resp, err := a.server.Client().Post(a.server.URL+"/providers/Microsoft.ResourceGraph/resources?api-version=2024-04-01", "text/plain", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 500 {
		t.Errorf("status %d, want 500", resp.StatusCode)
	}
}
