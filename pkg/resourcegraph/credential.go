package resourcegraph

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"defenderiot/pkg/secret"
)

// The kinds of credential.
const (
	KindClientSecret      = "client_secret"
	KindClientCertificate = "client_certificate"
	KindManagedIdentity   = "managed_identity"
	KindWorkloadIdentity  = "workload_identity"
	KindDefault           = "default"
)

// Credential says who asks. Which fields count depends on the kind.
type Credential struct {
	// Kind is one of the Kind constants; empty means [KindClientSecret].
	Kind string
	// TenantID is a guid or a domain; managed identities have none.
	TenantID string
	// ClientID is the application's id; for a managed identity that of a user-assigned one, or empty
	// for the system-assigned one; for a workload identity empty means AZURE_CLIENT_ID.
	ClientID     string
	ClientSecret secret.String
	// CertificateFile is PEM or PKCS#12 with the private key. The SDK reads neither encrypted PEM
	// keys nor PKCS#12 with a SHA-256 MAC.
	CertificateFile     string
	CertificatePassword secret.String
	// TokenFile is a workload identity's token; empty means AZURE_FEDERATED_TOKEN_FILE.
	TokenFile string
}

func (c Credential) kind() string {
	if c.Kind == "" {
		return KindClientSecret
	}
	return c.Kind
}

// open makes the SDK's credential object. It reads files but asks nothing of the network.
func (c Credential) open(net network) (azcore.TokenCredential, error) {
	switch c.kind() {
	case KindClientSecret:
		// The SDK checks the secret and the tenant; an empty client id it would let pass.
		if c.ClientID == "" {
			return nil, fmt.Errorf("a client secret needs the application's client_id")
		}
		return azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, c.ClientSecret.Reveal(),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: net.login, DisableInstanceDiscovery: net.private})
	case KindClientCertificate:
		data, err := os.ReadFile(c.CertificateFile)
		if err != nil {
			return nil, err
		}
		var password []byte
		if !c.CertificatePassword.IsZero() {
			password = []byte(c.CertificatePassword.Reveal())
		}
		certs, key, err := azidentity.ParseCertificates(data, password)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate %s: %w", c.CertificateFile, err)
		}
		return azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: net.login, DisableInstanceDiscovery: net.private})
	case KindManagedIdentity:
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: net.local}
		if c.ClientID != "" {
			o.ID = azidentity.ClientID(c.ClientID)
		}
		return azidentity.NewManagedIdentityCredential(o)
	case KindWorkloadIdentity:
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: net.login, DisableInstanceDiscovery: net.private,
			ClientID: c.ClientID, TenantID: c.TenantID, TokenFilePath: c.TokenFile,
		})
	case KindDefault:
		// The chain holds a managed identity, so it takes the transport that one accepts.
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: net.local, DisableInstanceDiscovery: net.private, TenantID: c.TenantID,
		})
	default:
		return nil, fmt.Errorf("unknown credential kind %q; allowed are %s, %s, %s, %s and %s", c.Kind,
			KindClientSecret, KindClientCertificate, KindManagedIdentity, KindWorkloadIdentity, KindDefault)
	}
}

// tokenError marks what the credential failed with, so that it is told from an answer of Resource
// Graph after the pipeline has wrapped it.
type tokenError struct{ error }

func (e *tokenError) Unwrap() error { return e.error }

// NonRetriable tells the SDK's pipeline not to try again: the credential has its own retries.
func (e *tokenError) NonRetriable() {}

// renewable is a credential that can be replaced under the pipeline. The SDK forgets a token that was
// answered with 401, but MSAL's cache inside the credential object keeps handing out the same one until
// it expires; only a new object asks the login endpoint again. Safe for concurrent use.
type renewable struct {
	open func() (azcore.TokenCredential, error)

	mu      sync.Mutex
	current azcore.TokenCredential
	age     int // how often it was replaced
}

func newRenewable(open func() (azcore.TokenCredential, error)) (*renewable, error) {
	first, err := open()
	if err != nil {
		return nil, err
	}
	return &renewable{open: open, current: first}, nil
}

// GetToken implements azcore.TokenCredential.
func (r *renewable) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	r.mu.Lock()
	cred := r.current
	r.mu.Unlock()
	token, err := cred.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, &tokenError{err}
	}
	return token, nil
}

func (r *renewable) generation() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.age
}

// renew replaces the credential unless another caller did so since generation seen.
func (r *renewable) renew(seen int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.age != seen {
		return nil
	}
	next, err := r.open()
	if err != nil {
		return &tokenError{err}
	}
	r.current, r.age = next, r.age+1
	return nil
}
