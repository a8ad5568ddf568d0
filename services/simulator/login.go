package simulator

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// App is an application registered in the simulated tenant.
type App struct {
	ClientID string
	// Secret is the client secret; without one only assertions are good.
	Secret string
	// SecretExpired refuses the right secret with AADSTS7000222.
	SecretExpired bool
	// Certificates are registered by their thumbprints: assertions signed
	// with their keys are good.
	Certificates []*x509.Certificate
	// Issuers and Subject register by issuer and subject: an assertion is
	// good whose x5c leads from this common name to one of the issuers.
	Issuers *x509.CertPool
	Subject string
	// Federated is the one token of another issuer that is good as an
	// assertion, none if "".
	Federated string
}

// Login is Microsoft's login endpoint for one tenant: the OpenID document and
// the token endpoint for client credentials, with a secret, an assertion
// signed by a certificate, or a federated token. The issuer is whatever host the client asked, which is
// what the Azure SDK demands. It is safe for concurrent use.
type Login struct {
	tenant   string
	audience string
	faults   faultQueue

	mu       sync.Mutex
	apps     map[string]App
	tokens   map[string]grant
	lifetime time.Duration
	issued   int64
}

type grant struct {
	principal string
	expires   time.Time
}

// NewLogin returns a login endpoint for a tenant (a GUID or a domain). Tokens
// are given for this audience only, for any if it is "".
func NewLogin(tenant, audience string, apps ...App) *Login {
	l := &Login{
		tenant: tenant, audience: audience,
		apps: map[string]App{}, tokens: map[string]grant{}, lifetime: time.Hour - time.Second,
	}
	for _, a := range apps {
		l.SetApp(a)
	}
	return l
}

// SetApp registers an application or changes it. Tokens stay valid.
func (l *Login) SetApp(a App) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apps[strings.ToLower(a.ClientID)] = a
}

// SetLifetime sets how long coming tokens are valid, to the second. The Azure
// SDK asks for a new one when less than five minutes are left.
func (l *Login) SetLifetime(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lifetime = d
}

// ExpireTokens makes all tokens given so far expired.
func (l *Login) ExpireTokens() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t, g := range l.tokens {
		g.expires = time.Now().Add(-time.Second)
		l.tokens[t] = g
	}
}

// Issued returns the number of tokens given.
func (l *Login) Issued() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.issued
}

// Fail spoils coming answers of the OpenID document and the token endpoint.
func (l *Login) Fail(f Fault) { l.faults.add(f) }

// ClearFaults forgets all faults.
func (l *Login) ClearFaults() { l.faults.clear() }

// Principal implements [Tokens].
func (l *Login) Principal(token string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.tokens[token]
	switch {
	case !ok:
		return "", ErrUnknownToken
	case time.Now().After(g.expires):
		return "", ErrExpiredToken
	}
	return g.principal, nil
}

var tenantForm = regexp.MustCompile(`^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)+)$`)

// ServeHTTP answers /{tenant}/v2.0/.well-known/openid-configuration and
// /{tenant}/oauth2/v2.0/token.
func (l *Login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.faults.take(r.URL.Path).before(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-cache")
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case rest == "v2.0/.well-known/openid-configuration" && r.Method == http.MethodGet:
		if l.known(w, tenant) {
			l.document(w, r, tenant)
		}
	case rest == "oauth2/v2.0/token" && r.Method == http.MethodPost:
		if l.known(w, tenant) {
			l.token(w, r)
		}
	default:
		http.NotFound(w, r)
	}
}

func (l *Login) known(w http.ResponseWriter, tenant string) bool {
	switch {
	case strings.EqualFold(tenant, l.tenant):
		return true
	case !tenantForm.MatchString(tenant):
		tenantMalformed(w, tenant)
	default:
		tenantNotFound(w, tenant)
	}
	return false
}

func (l *Login) document(w http.ResponseWriter, r *http.Request, tenant string) {
	base := "https://" + r.Host + "/" + tenant
	Fault{}.write(w, http.StatusOK, []byte(marshal(map[string]any{
		"issuer":                                base + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
	})))
}

func (l *Login) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		missingField(w, "grant_type")
		return
	}
	form := r.PostForm
	client, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok && client == "" {
		client, secret = user, password
	}
	l.mu.Lock()
	app, known := l.apps[strings.ToLower(client)]
	l.mu.Unlock()
	scope, _, _ := strings.Cut(form.Get("scope"), " ")
	resource, isDefault := strings.CutSuffix(scope, "/.default")
	switch {
	case form.Get("grant_type") != "client_credentials":
		wrongGrant(w, form.Get("grant_type"))
		return
	case client == "":
		missingField(w, "client_id")
		return
	case !known:
		applicationNotFound(w, client, l.tenant)
		return
	case form.Get("client_assertion") != "":
		if refused := app.refuses(form, "https://"+r.Host+r.URL.Path); refused != nil {
			refused.write(w)
			return
		}
	case app.Secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(app.Secret)) == 0:
		wrongSecret(w, client)
		return
	case app.SecretExpired:
		expiredSecret(w, client)
		return
	}
	if !l.serves(resource, isDefault) {
		wrongResource(w, scope)
		return
	}
	token, lifetime := l.grant(app.ClientID)
	seconds := int(lifetime / time.Second)
	Fault{}.write(w, http.StatusOK, []byte(marshal(map[string]any{
		"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
	})))
}

// serves reports whether tokens are given for a resource; whole is false for
// a scope that is none.
func (l *Login) serves(resource string, whole bool) bool {
	return whole && (l.audience == "" || strings.TrimRight(resource, "/") == strings.TrimRight(l.audience, "/"))
}

func (l *Login) grant(principal string) (string, time.Duration) {
	var b [48]byte
	rand.Read(b[:]) // never fails (crypto/rand, since Go 1.24)
	token := base64.RawURLEncoding.EncodeToString(b[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	for old, g := range l.tokens {
		// Expired ones are kept for a day, to be told from unknown ones.
		if time.Since(g.expires) > 24*time.Hour {
			delete(l.tokens, old)
		}
	}
	l.tokens[token] = grant{principal, time.Now().Add(l.lifetime)}
	l.issued++
	return token, l.lifetime
}
