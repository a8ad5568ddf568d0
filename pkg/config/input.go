package config

import "defenderiot/pkg/secret"

// InputName is the name of the first input; the names of further ones start with it and `_`.
const InputName = "defender_for_iot"

// The values of Input.Cloud.
const (
	CloudPublic     = "public"
	CloudGovernment = "government"
	CloudChina      = "china"
	CloudCustom     = "custom"
)

// Input is one entry of `inputs`: one principal in one tenant.
type Input struct {
	ID             string          `yaml:"id" jsonschema:"required,minLength=1" jsonschema_description:"Identifies this input, for example a number of five or more digits. A part of the key of its state: leave it as it is."`
	Enabled        bool            `yaml:"enabled" jsonschema:"default=true" jsonschema_description:"Whether this input is read at all."`
	Credentials    Credentials     `yaml:"credentials" jsonschema_description:"How to sign in at Microsoft Entra ID. Exactly one of client_secret, client_certificate, managed_identity and workload_identity; none of them and no client_id: the default chain of the Azure SDK."`
	Environment    string          `yaml:"environment" jsonschema_description:"Added to every event as @devo_environment."`
	Cloud          string          `yaml:"cloud" jsonschema:"enum=public,enum=government,enum=china,enum=custom,default=public" jsonschema_description:"Which Azure this is."`
	CustomCloud    *CustomCloud    `yaml:"custom_cloud" jsonschema_description:"The endpoints, for cloud: custom."`
	RequestsLimits []RequestsLimit `yaml:"requests_limits" jsonschema_description:"At most so many requests to Resource Graph in any stretch of the period, repeats of a request among them. All limits hold, beside those of globals and of the service and beside quota_share. Counted from the program's start, in each process for itself; what check asks is not counted."`
	Autoconfig     Autoconfig      `yaml:"autoconfig" jsonschema_description:"When the set-up (token, test fetch) is done again, and how long it may take."`
	Services       Services        `yaml:"services" jsonschema:"required" jsonschema_description:"What to read."`
}

// Credentials is how to sign in. At most one of ClientSecret, ClientCertificate, ManagedIdentity and
// WorkloadIdentity is set; [Credentials.Kind] says which. The secrets may change while the program runs
// (secret.String.Latest).
type Credentials struct {
	TenantID                  string            `yaml:"tenant_id" jsonschema:"pattern=^[A-Za-z0-9.-]+$" jsonschema_description:"The tenant: its GUID or its domain."`
	ClientID                  string            `yaml:"client_id" jsonschema:"minLength=1" jsonschema_description:"The application (client) id."`
	ClientSecret              secret.String     `yaml:"client_secret" jsonschema_description:"A client secret: the value, not its id."`
	ClientCertificate         string            `yaml:"client_certificate" jsonschema:"minLength=1" jsonschema_description:"PEM or PKCS#12 file with certificate, private key and perhaps the chain, relative to ./certs/."`
	ClientCertificatePassword secret.String     `yaml:"client_certificate_password" jsonschema_description:"The password of client_certificate, if that is PKCS#12."`
	ManagedIdentity           *ManagedIdentity  `yaml:"managed_identity" jsonschema_description:"The managed identity of the machine, App Service or Arc server: {} for the system-assigned one."`
	WorkloadIdentity          *WorkloadIdentity `yaml:"workload_identity" jsonschema_description:"A federated token, as in Kubernetes: {} to take all from the environment variables AZURE_*."`
}

// CredentialKind is a way to sign in.
type CredentialKind string

// The ways to sign in, named as their key; CredentialDefault has none.
const (
	CredentialClientSecret      CredentialKind = "client_secret"
	CredentialClientCertificate CredentialKind = "client_certificate"
	CredentialManagedIdentity   CredentialKind = "managed_identity"
	CredentialWorkloadIdentity  CredentialKind = "workload_identity"
	CredentialDefault           CredentialKind = "default" // no key at all
)

// Kind is the one way that is configured.
func (c Credentials) Kind() CredentialKind {
	switch {
	case c.ManagedIdentity != nil:
		return CredentialManagedIdentity
	case c.WorkloadIdentity != nil:
		return CredentialWorkloadIdentity
	case c.ClientCertificate != "":
		return CredentialClientCertificate
	case !c.ClientSecret.IsZero():
		return CredentialClientSecret
	default:
		return CredentialDefault
	}
}

// ManagedIdentity is `credentials.managed_identity`; all empty means the system-assigned one. The
// fields select a user-assigned one, by at most one of them.
type ManagedIdentity struct {
	ClientID   string `yaml:"client_id" jsonschema:"minLength=1" jsonschema_description:"The client id of a user-assigned identity."`
	ObjectID   string `yaml:"object_id" jsonschema:"minLength=1" jsonschema_description:"The object (principal) id of a user-assigned identity."`
	ResourceID string `yaml:"resource_id" jsonschema:"minLength=1" jsonschema_description:"The Azure resource id of a user-assigned identity."`
}

// WorkloadIdentity is `credentials.workload_identity`; the tenant and client are those of the
// credentials, or else of the environment.
type WorkloadIdentity struct {
	TokenFile string `yaml:"token_file" jsonschema:"minLength=1" jsonschema_description:"The file of the federated token, read anew for each token; if absent, AZURE_FEDERATED_TOKEN_FILE."`
}

// CustomCloud is where `cloud: custom` is.
type CustomCloud struct {
	AuthorityHost           string `yaml:"authority_host" jsonschema:"required,pattern=^https://[^\\s/@]+(/[^\\s@]*)?$" jsonschema_description:"Where tokens come from, for example https://login.microsoftonline.com/."`
	ResourceManagerEndpoint string `yaml:"resource_manager_endpoint" jsonschema:"required,pattern=^https://[^\\s/@]+(/[^\\s@]*)?$" jsonschema_description:"Where Azure Resource Manager is, for example https://management.azure.com."`
	ResourceManagerAudience string `yaml:"resource_manager_audience" jsonschema:"required,minLength=1" jsonschema_description:"What tokens are for, for example https://management.core.windows.net/."`
	CAFile                  string `yaml:"ca_file" jsonschema:"minLength=1" jsonschema_description:"PEM file of further authorities to trust, relative to ./certs/."`
}

// RequestsLimit bounds how often is asked: at most NumberOfRequests in any stretch of Period.
type RequestsLimit struct {
	Period           Period `yaml:"period" jsonschema:"required" jsonschema_description:"The window: a number and one of s, m, h, d, w, M (30 days), y (365 days)."`
	NumberOfRequests int    `yaml:"number_of_requests" jsonschema:"required,minimum=-9999999,maximum=9999999" jsonschema_description:"Requests in the window; 0 or less: unlimited."`
}

// Autoconfig is when the set-up is done again.
type Autoconfig struct {
	Enabled                  bool `yaml:"enabled" jsonschema:"default=true" jsonschema_description:"Whether the set-up is done again at intervals. It always precedes the first pull and the one after a failed pull."`
	RefreshIntervalInSeconds int  `yaml:"refresh_interval_in_seconds" jsonschema:"minimum=1,maximum=604800,default=600" jsonschema_description:"Seconds from one set-up to the next; a pull that is under way is not interrupted."`
	CreationTimeoutInSecond  int  `yaml:"creation_timeout_in_second" jsonschema:"minimum=1,maximum=604800,default=60" jsonschema_description:"Seconds that each request of a set-up may take with its repeats; then the set-up has failed and is retried."`
}

// Services is what an input reads.
type Services struct {
	IoTSecurityAlerts IoTSecurityAlerts `yaml:"iot_security_alerts" jsonschema:"required" jsonschema_description:"The alerts of Defender for IoT."`
}
