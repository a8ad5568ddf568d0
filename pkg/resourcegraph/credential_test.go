package resourcegraph

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
)

func TestRevokedTokenIsReplaced(t *testing.T) {
	a := startAzure(t, answers(200, `{"data":[]}`))
	c := a.client()
	if _, err := c.Page(t.Context(), Query{}); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.revoked["token-number-1"] = true
	a.mu.Unlock()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := c.Page(t.Context(), Query{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if a.tokens != 2 {
		t.Errorf("%d tokens were asked for, want 2", a.tokens)
	}
}

func TestRenewOnlyOnceForAll(t *testing.T) {
	count := 0
	r, err := newRenewable(source{
		read:  func() (material, error) { return material{}, nil },
		open:  func(material) (opened, error) { count++; return opened{TokenCredential: anyToken{}}, nil },
		clean: newCleaner(),
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := r.generation()
	for range 3 {
		if err := r.renew(seen); err != nil {
			t.Fatal(err)
		}
	}
	if count != 2 || r.generation() == seen {
		t.Errorf("opened %d times", count)
	}
}

func TestTokenErrors(t *testing.T) {
	login := func(status int, number int, text string) http.HandlerFunc {
		body, _ := json.Marshal(map[string]any{"error": "invalid_client", "error_description": text, "error_codes": []int{number}, "trace_id": "t"})
		return answers(status, string(body), "Content-Type", "application/json")
	}
	for name, tc := range map[string]struct {
		login http.HandlerFunc
		text  string
		hint  string
	}{
		"wrong secret":   {login(401, 7000215, "AADSTS7000215: Invalid client secret provided."), "Exception: AADSTS7000215: Invalid client secret provided.", "Value, not its Secret ID"},
		"expired secret": {login(401, 7000222, "AADSTS7000222: expired\r\nTrace ID: 1"), "Exception: AADSTS7000222: expired Trace ID: 1.", "expired"},
		"unknown tenant": {login(400, 90002, "AADSTS90002: Tenant 'x' not found."), "AADSTS90002", "tenant_id"},
		"number only":    {login(400, 700016, "no text"), "AADSTS700016: no text", "client_id and tenant_id"},
		"unknown number": {login(400, 1, "AADSTS1: whatever"), "AADSTS1: whatever", ""},
		"fault of login": {answers(503, ""), "HTTP status 503", "tries again"},
		"throttled":      {login(429, 90055, "AADSTS90055: throttled"), "AADSTS90055", "wait"},
		"html":           {answers(403, "<html>Blocked by the proxy</html>"), "Blocked by the proxy", ""},
		"echoed secret": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			body, _ := json.Marshal(map[string]string{"error": "x", "error_description": "you sent " + r.Form.Encode() + " and " + testSecret})
			_, _ = w.Write(body)
		}, "you sent", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := startAzure(t, answers(200, `{"data":[]}`))
			a.login = func(w http.ResponseWriter, r *http.Request) { _ = r.ParseForm(); tc.login(w, r) }
			c := a.client()
			_, pageErr := c.Page(t.Context(), Query{})
			for _, err := range []error{c.Token(t.Context()), pageErr} {
				var named *fault.Error
				if !errors.As(err, &named) || named.Type != fault.TypeSetup || named.Code != 101 {
					t.Fatalf("got %v", err)
				}
				if status := strings.HasPrefix(name, "fault of") || name == "throttled"; errors.Is(err, ErrTransient) != status {
					t.Errorf("transient: %v", !status)
				}
				start := "SetupError [CODE:0101] reason: Failed to fetch OAuth token from " + a.URL + "/" + testTenant + "/oauth2/v2.0/token. Exception: "
				if !strings.HasPrefix(err.Error(), start) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "..") || !strings.Contains(named.Hint, tc.hint) || tc.hint == "" && named.Hint != "" {
					t.Errorf("got %v\nhint %s", err, named.Hint)
				}
				for _, form := range []string{testSecret, "s3cr3t"} {
					if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, named.Cause), form) {
						t.Errorf("the secret shows in %#v", named.Cause)
					}
				}
			}
			if a.queries() != 0 {
				t.Error("a query was sent without a token")
			}
		})
	}
}

func TestToken(t *testing.T) {
	a := startAzure(t, answers(200, `{"data":[]}`))
	c := a.client()
	if err := c.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Page(t.Context(), Query{}); err != nil || a.tokens != 1 {
		t.Errorf("%v, %d tokens", err, a.tokens)
	}
}

func TestCertificateOfAnUnknownAuthority(t *testing.T) {
	a := startAzure(t, answers(200, `{"data":[]}`))
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	c := a.client(func(s *Settings) { s.Cloud.CAFile = "" })
	if err := c.Token(t.Context()); !strings.Contains(fault.Hint(err), "ca_file") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
	c.credential.current.TokenCredential = anyToken{}
	_, err := c.Page(t.Context(), Query{})
	var named *fault.Error
	if !errors.As(err, &named) || named.Code != 301 || !strings.Contains(named.Hint, "ca_file") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func TestSettingsThatCannotWork(t *testing.T) {
	good := Credential{TenantID: testTenant, ClientID: "c", ClientSecret: secret.New(testSecret)}
	for name, s := range map[string]Settings{
		"share 0":            {Credential: good},
		"share above 1":      {Credential: good, QuotaShare: 1.1},
		"no secret":          {Credential: Credential{TenantID: testTenant, ClientID: "c"}, QuotaShare: 1},
		"no client":          {Credential: Credential{TenantID: testTenant, ClientSecret: secret.New("x")}, QuotaShare: 1},
		"bad tenant":         {Credential: Credential{TenantID: "a b", ClientID: "c", ClientSecret: secret.New("x")}, QuotaShare: 1},
		"unknown kind":       {Credential: Credential{Kind: "magic"}, QuotaShare: 1},
		"certificate absent": {Credential: Credential{Kind: KindClientCertificate, TenantID: testTenant, ClientID: "c", CertificateFile: "testdata/none.pem"}, QuotaShare: 1},
		"no certificate":     {Credential: Credential{Kind: KindClientCertificate, TenantID: testTenant, ClientID: "c", CertificateFile: "main_test.go"}, QuotaShare: 1},
		"unknown cloud":      {Credential: good, Cloud: Cloud{Name: "moon"}, QuotaShare: 1},
		"http authority":     {Credential: good, Cloud: Cloud{Name: CloudCustom, AuthorityHost: "http://x", ResourceManagerEndpoint: "https://x", ResourceManagerAudience: "x"}, QuotaShare: 1},
		"no audience":        {Credential: good, Cloud: Cloud{Name: CloudCustom, AuthorityHost: "https://x", ResourceManagerEndpoint: "https://x"}, QuotaShare: 1},
		"ca absent":          {Credential: good, Cloud: Cloud{CAFile: "testdata/none.pem"}, QuotaShare: 1},
		"no ca":              {Credential: good, Cloud: Cloud{CAFile: "main_test.go"}, QuotaShare: 1},
	} {
		c, err := New(s)
		var named *fault.Error
		if c != nil || !errors.As(err, &named) || named.Type != fault.TypeConfiguration || strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestEveryKindAndCloudCanBeMade(t *testing.T) {
	t.Setenv("AZURE_CLIENT_ID", "c")
	t.Setenv("AZURE_TENANT_ID", testTenant)
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "token")
	names := map[string]string{
		KindClientSecret: "client secret (client id c)", KindManagedIdentity: "managed identity (client id c)",
		KindWorkloadIdentity: "workload identity (token file token)", KindDefault: "default chain",
	}
	for _, kind := range []string{KindClientSecret, KindManagedIdentity, KindWorkloadIdentity, KindDefault} {
		for cloud, endpoint := range map[string]string{
			CloudPublic: "https://management.azure.com", CloudGovernment: "https://management.usgovcloudapi.net", CloudChina: "https://management.chinacloudapi.cn",
		} {
			c, err := New(Settings{Credential: Credential{Kind: kind, TenantID: testTenant, ClientID: "c", ClientSecret: secret.New("x")}, Cloud: Cloud{Name: cloud}, QuotaShare: 0.6})
			if err != nil {
				t.Errorf("%s in %s: %v", kind, cloud, err)
				continue
			}
			if !strings.Contains(c.Identity(), names[kind]) || c.endpoint != endpoint || !strings.HasSuffix(c.scope, "//.default") || c.brake.limit != 9 {
				t.Errorf("%s in %s: %+v", kind, cloud, c)
			}
			c.Close()
		}
	}
}

func TestClientCertificate(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "app.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	a := startAzure(t, answers(200, `{"data":[]}`))
	var assertion string
	a.login = func(w http.ResponseWriter, r *http.Request) {
		assertion = r.FormValue("client_assertion")
		io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"t"}`)
	}
	c := a.client(func(s *Settings) {
		s.Credential = Credential{Kind: KindClientCertificate, TenantID: testTenant, ClientID: "c", CertificateFile: file}
	})
	if _, err := c.Page(t.Context(), Query{}); err != nil || strings.Count(assertion, ".") != 2 || !strings.HasPrefix(c.Identity(), "client certificate (thumbprint ") {
		t.Errorf("%v, assertion %q", err, assertion)
	}
}

// The login endpoint's Retry-After is passed on, however long.
func TestTokenErrorCarriesItsWait(t *testing.T) {
	a := startAzure(t, nil)
	asked := 0
	a.login = func(w http.ResponseWriter, r *http.Request) {
		asked++
		answers(429, `{"error":"x","error_codes":[90055]}`, "Retry-After", "150")(w, r)
	}
	err := a.client().Token(t.Context())
	if d, ok := fault.Delay(err); !ok || d != 150*time.Second || asked != 1 {
		t.Errorf("%v with %v after %d requests", err, d, asked)
	}
}

func TestRenewed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", path)
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	c, err := New(Settings{QuotaShare: 1, Credential: Credential{Kind: KindWorkloadIdentity, TenantID: testTenant, ClientID: "c"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Renewed() {
		t.Error("renewed at once")
	}
	write("two")
	if !c.Renewed() {
		t.Error("a new token file was not seen")
	}
	c.credential.mu.Lock()
	c.credential.follow() // as the next token does
	c.credential.mu.Unlock()
	if c.Renewed() {
		t.Error("seen again after it was taken up")
	}
}
