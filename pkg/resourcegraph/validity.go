package resourcegraph

import (
	"os"
	"time"

	"defenderiot/pkg/certificate"
)

const remedyCertificate = "make a new certificate, add it to the application in Microsoft Entra ID (App registrations, Certificates & secrets), and put it in the place of the file; no restart is needed"

// Validities reads the client's certificate file anew and tells when it ends; none for a credential without one. Dates
// are not judged. An error says that the file cannot be read just now.
func (c *Client) Validities(time.Time) ([]certificate.Validity, error) {
	return c.origin.validities()
}

func (c Credential) validities() ([]certificate.Validity, error) {
	path, password := "", ""
	switch c.kind() {
	case KindClientCertificate:
		latest, err := c.CertificatePassword.Latest()
		if err != nil {
			return nil, err
		}
		path, password = c.CertificateFile, latest.Reveal()
	case KindDefault:
		path, password = os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH"), os.Getenv("AZURE_CLIENT_CERTIFICATE_PASSWORD")
	}
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, _, err := parseCertificate(data, password)
	if err != nil {
		return nil, err
	}
	return []certificate.Validity{certificate.Of("client_certificate", path, certs, remedyCertificate)}, nil
}
