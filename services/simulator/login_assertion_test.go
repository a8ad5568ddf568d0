package simulator_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// The endpoint must refuse what Microsoft's refuses, or the tests of the collector prove nothing.
func TestAssertionsAreChecked(t *testing.T) {
	a := newAzure(t)
	root, err := simulator.NewAuthority("root")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.AppCertificate(simulator.Sound, "the-app")
	if err != nil {
		t.Fatal(err)
	}
	expired, err := root.AppCertificate(simulator.Expired, "the-app")
	if err != nil {
		t.Fatal(err)
	}
	byThumbprint := simulator.App{ClientID: clientID, Certificates: []*x509.Certificate{cert.Leaf, expired.Leaf}}
	byIssuer := simulator.App{ClientID: clientID, Issuers: root.Pool(), Subject: "the-app"}
	endpoint := a.server.URL + "/" + tenant + "/oauth2/v2.0/token"
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	type set = map[string]any
	now := time.Now().Unix()
	for name, tt := range map[string]struct {
		app     simulator.App
		header  set
		claims  set
		expired bool
		change  func(assertion string) string
		want    string // "" means a token
	}{
		"good":                    {app: byThumbprint},
		"good by issuer":          {app: byIssuer, header: set{"x5c": cert.Certificate}},
		"no x5c":                  {app: byIssuer, want: "AADSTS700027"},
		"chain not whole":         {app: byIssuer, header: set{"x5c": cert.Certificate[:1]}, want: "AADSTS700027"},
		"another subject":         {app: simulator.App{ClientID: clientID, Issuers: root.Pool(), Subject: "another"}, header: set{"x5c": cert.Certificate}, want: "AADSTS700027"},
		"not registered":          {app: simulator.App{ClientID: clientID, Secret: password}, want: "AADSTS700213"},
		"another thumbprint":      {app: byThumbprint, header: set{"x5t#S256": "AAAA"}, want: "AADSTS700027"},
		"another algorithm":       {app: byThumbprint, header: set{"alg": "none"}, want: "AADSTS700027"},
		"another audience":        {app: byThumbprint, claims: set{"aud": "https://elsewhere.invalid/token"}, want: "AADSTS700023"},
		"another client":          {app: byThumbprint, claims: set{"sub": "x"}, want: "AADSTS700021"},
		"over":                    {app: byThumbprint, claims: set{"exp": now - 3600}, want: "AADSTS700024"},
		"not yet":                 {app: byThumbprint, claims: set{"nbf": now + 3600}, want: "AADSTS700024"},
		"expired certificate":     {app: byThumbprint, expired: true, want: "AADSTS700027"},
		"changed after signing":   {app: byThumbprint, change: func(s string) string { return s[:len(s)-8] + "AAAAAAAA" }, want: "AADSTS700027"},
		"no assertion at all":     {app: byThumbprint, change: func(string) string { return "" }, want: "AADSTS7000215"},
		"nonsense":                {app: byThumbprint, change: func(string) string { return "a.b.c" }, want: "AADSTS50027"},
		"federated":               {app: simulator.App{ClientID: clientID, Federated: "theirs"}, change: func(string) string { return "theirs" }},
		"another federated token": {app: simulator.App{ClientID: clientID, Federated: "theirs"}, change: func(string) string { return "other" }, want: "AADSTS700213"},
	} {
		t.Run(name, func(t *testing.T) {
			a.login.SetApp(tt.app)
			signer := cert
			if tt.expired {
				signer = expired
			}
			sum := sha256.Sum256(signer.Leaf.Raw)
			header := set{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.StdEncoding.EncodeToString(sum[:])}
			claims := set{"aud": endpoint, "iss": clientID, "sub": clientID, "jti": "1", "exp": now + 600, "nbf": now}
			for k, v := range tt.header {
				header[k] = v
			}
			for k, v := range tt.claims {
				claims[k] = v
			}
			signed := part(header) + "." + part(claims)
			digest := sha256.Sum256([]byte(signed))
			signature, err := rsa.SignPSS(rand.Reader, signer.PrivateKey.(*rsa.PrivateKey), crypto.SHA256, digest[:], nil)
			if err != nil {
				t.Fatal(err)
			}
			assertion := signed + "." + base64.RawURLEncoding.EncodeToString(signature)
			if tt.change != nil {
				assertion = tt.change(assertion)
			}
			resp, err := a.server.Client().PostForm(endpoint, url.Values{
				"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {audience + "/.default"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if good := strings.Contains(string(body), "access_token"); good != (tt.want == "") || !strings.Contains(string(body), tt.want) || (resp.StatusCode == 200) != good {
				t.Errorf("%d %s, want %s", resp.StatusCode, body, tt.want)
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	login := simulator.NewLogin(tenant, audience)
	server := httptest.NewServer(simulator.NewMetadata(login, "the-header", nil, simulator.Identity{ClientID: "user", ObjectID: "object"}))
	defer server.Close()
	good := "?api-version=1&resource=" + url.QueryEscape(audience)
	for name, tt := range map[string]struct {
		path, header, value string
		status              int
	}{
		"machine":             {simulator.MetadataPath + good + "&client_id=user", "Metadata", "true", 200},
		"machine by object":   {simulator.MetadataPath + good + "&object_id=OBJECT", "Metadata", "true", 200},
		"service":             {simulator.AppServicePath + good + "&client_id=user", "X-IDENTITY-HEADER", "the-header", 200},
		"no header":           {simulator.MetadataPath + good + "&client_id=user", "", "", 400},
		"wrong header":        {simulator.AppServicePath + good + "&client_id=user", "X-IDENTITY-HEADER", "x", 401},
		"no resource":         {simulator.MetadataPath + "?api-version=1&client_id=user", "Metadata", "true", 400},
		"another resource":    {simulator.MetadataPath + "?api-version=1&resource=x&client_id=user", "Metadata", "true", 400},
		"no system identity":  {simulator.MetadataPath + good, "Metadata", "true", 400},
		"an unknown identity": {simulator.MetadataPath + good + "&client_id=x", "Metadata", "true", 400},
		"another path":        {"/x" + good, "Metadata", "true", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.header != "" {
			req.Header.Set(tt.header, tt.value)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d", name, resp.StatusCode, tt.status)
		}
	}
	if login.Issued() != 3 {
		t.Errorf("%d tokens", login.Issued())
	}
}
