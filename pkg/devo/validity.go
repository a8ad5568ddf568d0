package devo

import (
	"crypto/x509"
	"time"

	"defenderiot/pkg/certificate"
)

// What to do about a certificate that ends.
const (
	remedyCert  = hintDownload + ", and replace cert and key; no restart is needed"
	remedyChain = "put a current chain file there (" + hintDownload + "), or remove the certificate from it if nothing needs it; no restart is needed"
)

// Validities reads the endpoint's certificate files, as [Dial] does, and returns one Validity for each
// that it has, cert before chain; none for an endpoint without TLS. Dates are not judged. The errors are
// those of files that cannot be used, with a hint.
func (e Endpoint) Validities(now time.Time) ([]certificate.Validity, error) {
	if e.Kind != TLS {
		return nil, nil
	}
	found, err := e.read(now)
	if err != nil {
		return nil, err
	}
	var out []certificate.Validity
	if found.pair != nil {
		out = append(out, certificate.Of("cert", e.CertFile, found.sent(), remedyCert))
	}
	if len(found.chain) > 0 {
		out = append(out, certificate.Of("chain", e.ChainFile, found.chain, remedyChain))
	}
	return out, nil
}

// sent returns the client certificate with the intermediates that are sent along.
func (k keys) sent() []*x509.Certificate {
	out := []*x509.Certificate{k.pair.Leaf}
	for _, der := range k.pair.Certificate[1:] {
		// crypto/tls sends what it cannot read as well; there is no date in it.
		if cert, err := x509.ParseCertificate(der); err == nil {
			out = append(out, cert)
		}
	}
	return out
}
