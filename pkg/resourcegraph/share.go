package resourcegraph

import (
	"cmp"
	"os"
	"strings"
	"time"
)

// QuotaSettles is the time after which nothing that a client has sent counts in the principal's quota any more, if it
// has sent nothing since.
const QuotaSettles = arrival + quotaWindow

// Divide makes the client take one of so many equal parts of its quota share until the given moment, after which no
// request leaves until the next call; the zero time means for ever. Its callers know who else uses the quota and tell
// each client the same number. Where the parts are more than the share has requests, each is one request in as many
// windows as it takes: then the average holds, and a single window may see more. What was sent under a larger part counts on: [QuotaSettles] later the smaller one holds. Before the
// first call the client takes its whole share.
func (c *Client) Divide(parts int, until time.Time) { c.brake.divide(parts, until) }

// Hold lets no request leave for d, at most 15 s, from now.
func (c *Client) Hold(d time.Duration) { c.brake.hold(d) }

func (b *brake) divide(parts int, until time.Time) {
	parts = max(parts, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.stretch, b.good = max(b.whole/parts, 1), (parts+b.whole-1)/b.whole, until
	b.signal()
}

func (b *brake) hold(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until := time.Now().Add(min(d, maxBlocked)); until.After(b.blocked) {
		b.blocked = until
	}
}

// Principal is whom Azure counts the requests of, as far as the configuration tells. The zero value is somebody unknown.
type Principal struct {
	// Client is an application's id, or what else names an identity; for one that is named nowhere the kind of credential.
	Client string `json:"client"`
	// Tenant is a guid, a domain or empty.
	Tenant string `json:"tenant,omitempty"`
}

// Principal returns who asks.
func (c *Client) Principal() Principal { return c.principal }

// MayBe reports whether both can be the same one. It errs on that side: a domain may be any tenant, and an unknown
// principal anybody.
func (p Principal) MayBe(o Principal) bool {
	switch {
	case p == Principal{} || o == Principal{}:
		return true
	case p.Client != o.Client:
		return false
	}
	return p.Tenant == o.Tenant || !guid(p.Tenant) || !guid(o.Tenant)
}

func (c Credential) principal() Principal {
	client, tenant := cmp.Or(c.ClientID, c.ObjectID, c.ResourceID), c.TenantID
	switch c.kind() {
	case KindManagedIdentity:
		tenant = ""
	case KindWorkloadIdentity, KindDefault:
		client, tenant = cmp.Or(client, os.Getenv("AZURE_CLIENT_ID")), cmp.Or(tenant, os.Getenv("AZURE_TENANT_ID"))
	}
	return Principal{Client: strings.ToLower(cmp.Or(client, c.kind())), Tenant: strings.ToLower(tenant)}
}
