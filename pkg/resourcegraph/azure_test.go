package resourcegraph

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/pkg/secret"
)

const (
	testTenant = "11111111-2222-3333-4444-555555555555"
	testSecret = "s3cr3t+/~value"
)

// azure plays the login endpoint and Resource Graph of a private cloud for one client.
type azure struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	tokens   int               // handed out
	revoked  map[string]bool   // tokens that get a plain 401
	login    http.HandlerFunc  // instead of a token
	graph    http.HandlerFunc  // the answer to a query with a good token
	requests []json.RawMessage // bodies of the queries
	headers  []http.Header
}

// startAzure starts one whose every query is answered by graph.
func startAzure(t testing.TB, graph http.HandlerFunc, change ...func(*httptest.Server)) *azure {
	t.Helper()
	a := &azure{t: t, graph: graph, revoked: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q}`,
			a.URL+"/"+testTenant+"/v2.0", a.URL+"/"+testTenant+"/oauth2/v2.0/authorize", a.URL+"/"+testTenant+"/oauth2/v2.0/token")
	})
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", a.token)
	mux.HandleFunc("POST /providers/Microsoft.ResourceGraph/resources", a.query)
	a.Server = httptest.NewUnstartedServer(mux)
	for _, f := range change {
		f(a.Server)
	}
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

func (a *azure) token(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.login != nil {
		a.login(w, r)
		return
	}
	if r.FormValue("client_secret") != testSecret {
		a.t.Errorf("the login endpoint got the secret %q", r.FormValue("client_secret"))
	}
	a.tokens++
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"token-number-%d"}`, a.tokens)
}

func (a *azure) query(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.requests = append(a.requests, body)
	a.headers = append(a.headers, r.Header.Clone())
	revoked := a.revoked[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	graph := a.graph
	a.mu.Unlock()
	if revoked {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":{"code":"InvalidAuthenticationToken","message":"The access token is invalid."}}`)
		return
	}
	graph(w, r)
}

func (a *azure) queries() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// settings are those of a client for a, its certificate in a file.
func (a *azure) settings() Settings {
	ca := filepath.Join(a.t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return Settings{
		Credential: Credential{TenantID: testTenant, ClientID: "the-client", ClientSecret: secret.New(testSecret)},
		Cloud: Cloud{Name: CloudCustom, AuthorityHost: a.URL, ResourceManagerEndpoint: a.URL,
			ResourceManagerAudience: "https://management.test/", CAFile: ca},
		QuotaShare: 1, UserAgent: "test", Timeout: 20 * time.Second,
	}
}

// client makes a client for a that does not dawdle between tries.
func (a *azure) client(change ...func(*Settings)) *Client {
	a.t.Helper()
	s := a.settings()
	for _, f := range change {
		f(&s)
	}
	c, err := newClient(s, hooks{retryDelay: time.Millisecond})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c
}

// answers always gives the same answer.
func answers(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// alertRow is a row in the shape of the documentation's examples, about 1.5 KB.
func alertRow(i int) string {
	return fmt.Sprintf(`{"id":"/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/alerts/%012d","name":"%012d","type":"microsoft.iotsecurity/locations/devicegroups/alerts","location":"eastus","resourceGroup":"","subscriptionId":"20ff7fc3-e762-44dd-bd96-b71116dcdc23","tenantId":"00000000-0000-0000-0000-0000000000aa","kind":"","tags":null,`+
		`"properties":{"systemAlertId":"3f6c5a0e-8f0f-4c1b-9d5b-0c2f3a5d7e11","displayName":"Internet Access Detected","description":"Device 192.168.0.13 tried to access an external IP address which is an address in the Internet and is not allowed by policy.\nIt is recommended to notify the security officer of the incident.","alertType":"CyberX_PolicyViolation_InternetAccess","severity":"High","status":"New","intent":"CommandAndControl","productComponentName":"POLICY_VIOLATION","startTimeUtc":"2026-11-20T09:58:41.1270000Z","endTimeUtc":"2026-11-20T09:58:41.1270000Z","azureResourceId":"/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/devices/fa30e727-16e1-4e81-84f1-d26b9153d1b2",`+
		`"extendedProperties":{"SensorId":"mySensor","DeviceId":"mySensor","SourceDeviceAddress":"192.168.0.13","DestinationDeviceAddress":"170.60.50.201","Protocol":"BACnet","isNew":"True","Count":9007199254740993,"DeviceResourceIds":["/subscriptions/20ff7fc3-e762-44dd-bd96-b71116dcdc23/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/devices/fa30e727-16e1-4e81-84f1-d26b9153d1b2"]},"entities":[{"$id":"1","Address":"192.168.0.13","Type":"ip"}],"techniques":[]}}`, i, i)
}

func alertPage(rows int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"totalRecords":%d,"count":%d,"data":[`, rows, rows)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(alertRow(i))
	}
	b.WriteString(`],"facets":[],"resultTruncated":"false"}`)
	return b.String()
}
