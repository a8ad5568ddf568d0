package resourcegraph

// SettingError names the setting for which [New] refused to make a client, so that its caller can point at the
// place it came from.
type SettingError struct {
	// Key is the setting's path below an input of the configuration, such as custom_cloud.ca_file.
	Key string
	// Allowed is what may stand there.
	Allowed string
	// Err is what is wrong; it may be nil where the error that wraps this one tells it without secrets.
	Err error
}

// Error is what is wrong, or else what is allowed.
func (e *SettingError) Error() string {
	if e.Err == nil {
		return e.Key + ": allowed: " + e.Allowed
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *SettingError) Unwrap() error { return e.Err }

const allowedAuthorities = "a PEM file of certificates that this user may read, relative to ./certs/"

func setting(key, allowed string, err error) error {
	return &SettingError{Key: key, Allowed: allowed, Err: err}
}

// setting is where the credential comes from. It wraps no cause: that may quote a secret.
func (c Credential) setting() *SettingError {
	switch c.kind() {
	case KindClientSecret:
		return &SettingError{Key: "credentials", Allowed: "tenant_id, client_id and client_secret of an application"}
	case KindClientCertificate:
		return &SettingError{Key: "credentials.client_certificate", Allowed: "a PEM or PKCS#12 file that this user may read, relative to ./certs/, of a certificate and its RSA private key"}
	case KindWorkloadIdentity:
		return &SettingError{Key: "credentials.workload_identity", Allowed: "token_file with tenant_id and client_id beside it, or what is missing in AZURE_FEDERATED_TOKEN_FILE, AZURE_TENANT_ID, AZURE_CLIENT_ID"}
	}
	return &SettingError{Key: "credentials", Allowed: "a client secret, a client certificate, managed_identity or workload_identity"}
}
