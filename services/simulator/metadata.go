package simulator

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The two places where a managed identity gets its tokens.
const (
	// MetadataPath is that of a virtual machine, at http://169.254.169.254.
	MetadataPath = "/metadata/identity/oauth2/token"
	// AppServicePath is that of an App Service, named by IDENTITY_ENDPOINT.
	AppServicePath = "/msi/token"
)

// Identity is a managed identity. One of its names is enough to ask for it.
type Identity struct {
	ClientID, ObjectID, ResourceID string
}

// Metadata is the endpoint for managed identities of a virtual machine and
// of an App Service. The tokens are those of a [Login]. It is safe for
// concurrent use.
type Metadata struct {
	login  *Login
	secret string

	mu       sync.Mutex
	system   *Identity
	assigned []Identity
	given    []string
}

// NewMetadata makes an endpoint. secret is what an App Service expects in
// X-IDENTITY-HEADER; system is the system-assigned identity, nil for none;
// assigned are the user-assigned ones.
func NewMetadata(login *Login, secret string, system *Identity, assigned ...Identity) *Metadata {
	return &Metadata{login: login, secret: secret, system: system, assigned: assigned}
}

// Given lists the client ids that got a token, in order.
func (m *Metadata) Given() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.given)
}

// ServeHTTP answers GET at [MetadataPath] and [AppServicePath].
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	service := r.URL.Path == AppServicePath
	if r.Method != http.MethodGet || !service && r.URL.Path != MetadataPath {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	query := r.URL.Query()
	switch {
	case service && r.Header.Get("X-IDENTITY-HEADER") != m.secret:
		refuseIdentity(w, http.StatusUnauthorized, "unauthorized_client", "The request header X-IDENTITY-HEADER is missing or wrong")
		return
	case !service && r.Header.Get("Metadata") != "true":
		refuseIdentity(w, http.StatusBadRequest, "bad_request_102", "Required metadata header not specified")
		return
	case query.Get("api-version") == "" || query.Get("resource") == "":
		refuseIdentity(w, http.StatusBadRequest, "invalid_request", "Required query variables 'api-version' and 'resource' are missing")
		return
	case !m.login.serves(query.Get("resource"), true):
		refuseIdentity(w, http.StatusBadRequest, "invalid_resource", "AADSTS500011: The resource principal named "+query.Get("resource")+" was not found in the tenant.")
		return
	}
	id := m.find(query)
	if id == nil {
		refuseIdentity(w, http.StatusBadRequest, "invalid_request", "Identity not found")
		return
	}
	token, lifetime := m.login.grant(id.ClientID)
	m.mu.Lock()
	m.given = append(m.given, id.ClientID)
	m.mu.Unlock()
	Fault{}.write(w, http.StatusOK, []byte(marshal(map[string]any{
		"access_token": token, "client_id": id.ClientID, "token_type": "Bearer", "resource": query.Get("resource"),
		"expires_in": strconv.Itoa(int(lifetime / time.Second)),
		"expires_on": strconv.FormatInt(time.Now().Add(lifetime).Unix(), 10),
	})))
}

// find is the identity that a request names, or the system-assigned one.
func (m *Metadata) find(query map[string][]string) *Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range []string{"client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"} {
		if len(query[key]) == 0 {
			continue
		}
		for _, id := range m.assigned {
			name := id.ResourceID
			switch key {
			case "client_id":
				name = id.ClientID
			case "object_id", "principal_id":
				name = id.ObjectID
			}
			if name != "" && strings.EqualFold(name, query[key][0]) {
				return &id
			}
		}
		return nil
	}
	return m.system
}

func refuseIdentity(w http.ResponseWriter, status int, kind, text string) {
	Fault{}.write(w, status, []byte(marshal(map[string]string{"error": kind, "error_description": text})))
}
