package devo

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// ExpiryNotice is how long before a certificate's end it is worth a warning.
const ExpiryNotice = 30 * 24 * time.Hour

// Validity is when what an endpoint's certificate file holds ends. It is a plain value.
type Validity struct {
	// Kind is the file's key in the configuration: "cert" or "chain".
	Kind string
	Path string
	// Subject is the name of the file's certificate that ends first, and End when it does.
	Subject string
	End     time.Time
}

// Validities reads the endpoint's certificate files, as [Dial] does, and returns one Validity for each
// that it has, cert before chain; none for an endpoint without TLS. Dates are not judged. The errors are
// those of files that cannot be used, with a hint.
func (e Endpoint) Validities(now time.Time) ([]Validity, error) {
	if e.Kind != TLS {
		return nil, nil
	}
	found, err := e.read(now)
	if err != nil {
		return nil, err
	}
	var out []Validity
	if found.pair != nil {
		out = append(out, validity("cert", e.CertFile, found.sent()))
	}
	if len(found.chain) > 0 {
		out = append(out, validity("chain", e.ChainFile, found.chain))
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

// validity is that of the first certificate to end, of at least one.
func validity(kind, path string, certs []*x509.Certificate) Validity {
	first := slices.MinFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return Validity{Kind: kind, Path: path, Subject: first.Subject.String(), End: first.NotAfter}
}

// Notice says in words that the certificate ends within [ExpiryNotice] of now, or has ended; "" while
// there is more time.
func (v Validity) Notice(now time.Time) string {
	left := v.End.Sub(now)
	what := fmt.Sprintf("the %s file %s holds a certificate (%s) that ", v.Kind, v.Path, v.Subject)
	switch {
	case left < 0:
		return what + "expired on " + date(v.End)
	case left < 48*time.Hour:
		return what + "expires on " + date(v.End) + ", within two days"
	case left < ExpiryNotice:
		return fmt.Sprintf("%sexpires on %s, in %d days", what, date(v.End), int(left/(24*time.Hour)))
	}
	return ""
}

// Remedy is the hint that belongs to a Notice.
func (v Validity) Remedy() string {
	if v.Kind == "chain" {
		return "put a current chain file there (" + hintDownload + "), or remove the certificate from it if nothing needs it; no restart is needed"
	}
	return hintDownload + ", and replace cert and key; no restart is needed"
}
