package resourcegraph

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	// The import of arm fills in Resource Manager's endpoints of the named clouds.
	_ "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// The names of the clouds.
const (
	CloudPublic     = "public"
	CloudGovernment = "government"
	CloudChina      = "china"
	CloudCustom     = "custom"
)

// Cloud says where to ask. The three addresses belong to [CloudCustom] alone and are all required there;
// they are https addresses, which the SDK insists on.
type Cloud struct {
	// Name is one of the Cloud constants; empty means [CloudPublic].
	Name string
	// AuthorityHost is the login endpoint, as https://login.example.
	AuthorityHost string
	// ResourceManagerEndpoint is where Resource Graph is, as https://management.example.
	ResourceManagerEndpoint string
	// ResourceManagerAudience is what the token is for; "/.default" is added to it.
	ResourceManagerAudience string
	// CAFile holds PEM certificates to trust besides the system's, for a private cloud or a proxy
	// that opens TLS. It goes with every cloud.
	CAFile string
}

func (c Cloud) name() string {
	if c.Name == "" {
		return CloudPublic
	}
	return c.Name
}

// configuration returns the SDK's form of the cloud.
func (c Cloud) configuration() (cloud.Configuration, error) {
	switch c.name() {
	case CloudPublic:
		return cloud.AzurePublic, nil
	case CloudGovernment:
		return cloud.AzureGovernment, nil
	case CloudChina:
		return cloud.AzureChina, nil
	case CloudCustom:
		for key, value := range map[string]string{
			"authority_host": c.AuthorityHost, "resource_manager_endpoint": c.ResourceManagerEndpoint,
		} {
			if u, err := url.Parse(value); err != nil || u.Scheme != "https" || u.Host == "" {
				return cloud.Configuration{}, setting("custom_cloud."+key, "an https address with a host", fmt.Errorf("custom cloud: %s must be an https address, not %q", key, value))
			}
		}
		if c.ResourceManagerAudience == "" {
			return cloud.Configuration{}, setting("custom_cloud.resource_manager_audience", "what tokens are for", errors.New("custom cloud: resource_manager_audience is missing"))
		}
		return cloud.Configuration{
			ActiveDirectoryAuthorityHost: c.AuthorityHost,
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {
				Endpoint: strings.TrimRight(c.ResourceManagerEndpoint, "/"), Audience: c.ResourceManagerAudience,
			}},
		}, nil
	default:
		return cloud.Configuration{}, fmt.Errorf("unknown cloud %q; allowed are %s, %s, %s and %s",
			c.Name, CloudPublic, CloudGovernment, CloudChina, CloudCustom)
	}
}

// roots returns the certificates to trust, nil for the system's alone.
func (c Cloud) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, setting("custom_cloud.ca_file", allowedAuthorities, fmt.Errorf("the cloud's ca_file: %w", err))
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, setting("custom_cloud.ca_file", allowedAuthorities, fmt.Errorf("the cloud's ca_file %s holds no PEM certificate", c.CAFile))
	}
	return pool, nil
}
