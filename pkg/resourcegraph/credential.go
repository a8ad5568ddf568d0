package resourcegraph

import (
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
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

// Credential says who asks. Which fields count depends on the kind. The files and the secrets that come from
// elsewhere (secret.Changing) are looked at before each token: what is new there is used for it.
type Credential struct {
	// Kind is one of the Kind constants; empty means [KindClientSecret].
	Kind string
	// TenantID is a guid or a domain; managed identities have none.
	TenantID string
	// ClientID is the application's id; for a managed identity that of a user-assigned one, or empty
	// for the system-assigned one; for a workload identity empty means AZURE_CLIENT_ID.
	ClientID     string
	ClientSecret secret.String
	// ObjectID and ResourceID are other names of a user-assigned managed identity; at most one counts.
	ObjectID, ResourceID string
	// CertificateFile is PEM or PKCS#12 with the RSA private key and perhaps the chain. A key that is
	// encrypted within PEM cannot be read.
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

// material is what a credential is made of and what may be replaced while the program runs.
type material struct {
	secret, password secret.String
	certificate      []byte
	print            [sha256.Size]byte // tells one material from another
}

// material reads the secrets and files anew.
func (c Credential) material() (material, error) {
	var m material
	var err error
	if m.secret, err = c.ClientSecret.Latest(); err != nil {
		return m, fmt.Errorf("the client secret: %w", err)
	}
	if m.password, err = c.CertificatePassword.Latest(); err != nil {
		return m, fmt.Errorf("the certificate's password: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q", m.secret.Reveal(), m.password.Reveal())
	for _, name := range c.files() {
		data, err := os.ReadFile(name)
		switch {
		case c.kind() == KindClientCertificate && err != nil:
			return m, err
		case c.kind() == KindClientCertificate:
			m.certificate = data
		}
		// The other files the SDK reads itself, and tells what is wrong with them.
		fmt.Fprintf(sum, " %q", data)
	}
	m.print = [sha256.Size]byte(sum.Sum(nil))
	return m, nil
}

// files are those that the credential is read from.
func (c Credential) files() []string {
	switch c.kind() {
	case KindClientCertificate:
		return []string{c.CertificateFile}
	case KindWorkloadIdentity:
		return []string{c.tokenFile()}
	case KindDefault:
		return []string{c.tokenFile(), os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH")}
	}
	return nil
}

func (c Credential) tokenFile() string {
	if c.TokenFile == "" && (c.kind() == KindWorkloadIdentity || c.kind() == KindDefault) {
		return os.Getenv("AZURE_FEDERATED_TOKEN_FILE")
	}
	return c.TokenFile
}

// opened is the SDK's credential object and what it is called.
type opened struct {
	azcore.TokenCredential
	name string
}

// open makes the SDK's credential object. It asks nothing of the network.
func (c Credential) open(m material, net network) (opened, error) {
	switch c.kind() {
	case KindClientSecret:
		// The SDK checks the secret and the tenant; an empty client id it would let pass.
		if c.ClientID == "" {
			return opened{}, fmt.Errorf("a client secret needs the application's client_id")
		}
		cred, err := azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, m.secret.Reveal(),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: net.login, DisableInstanceDiscovery: net.private})
		return opened{cred, "client secret (client id " + c.ClientID + ")"}, err
	case KindClientCertificate:
		certs, key, err := parseCertificate(m.certificate, m.password.Reveal())
		if err != nil {
			return opened{}, fmt.Errorf("reading the certificate %s: %w", c.CertificateFile, err)
		}
		// The whole file goes along: applications that trust an issuer and a subject need the chain,
		// those that trust a thumbprint do not look at it.
		cred, err := azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: net.login, DisableInstanceDiscovery: net.private, SendCertificateChain: true})
		return opened{cred, "client certificate (" + describe(certs, key) + ")"}, err
	case KindManagedIdentity:
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: net.local}
		name := "system-assigned"
		switch {
		case c.ClientID != "":
			o.ID, name = azidentity.ClientID(c.ClientID), "client id "+c.ClientID
		case c.ObjectID != "":
			o.ID, name = azidentity.ObjectID(c.ObjectID), "object id "+c.ObjectID
		case c.ResourceID != "":
			o.ID, name = azidentity.ResourceID(c.ResourceID), "resource id "+c.ResourceID
		}
		cred, err := azidentity.NewManagedIdentityCredential(o)
		return opened{cred, "managed identity (" + name + ")"}, err
	case KindWorkloadIdentity:
		cred, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: net.login, DisableInstanceDiscovery: net.private,
			ClientID: c.ClientID, TenantID: c.TenantID, TokenFilePath: c.TokenFile,
		})
		return opened{cred, "workload identity (token file " + c.tokenFile() + ")"}, err
	case KindDefault:
		// The chain holds a managed identity, so it takes the transport that one accepts.
		cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: net.local, DisableInstanceDiscovery: net.private, TenantID: c.TenantID,
		})
		return opened{&chain{credential: cred}, "default chain"}, err
	default:
		return opened{}, fmt.Errorf("unknown credential kind %q; allowed are %s, %s, %s, %s and %s", c.Kind,
			KindClientSecret, KindClientCertificate, KindManagedIdentity, KindWorkloadIdentity, KindDefault)
	}
}
