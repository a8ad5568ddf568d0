// Package certificate tells when certificates end, early enough that somebody replaces them.
package certificate

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Notice is how long before a certificate's end it is worth a warning.
const Notice = 30 * 24 * time.Hour

// Validity is when what a certificate file holds, or what a server shows, ends. It is a plain value.
type Validity struct {
	// Kind is the file's key in the configuration, such as cert or chain; [Server] for what a server shows.
	Kind string
	// Path is the file's; of a server its address.
	Path string
	// Subject is the name of the certificate among them that ends first, and End when it does.
	Subject string
	End     time.Time
	// Remedy says what to do about one that ends.
	Remedy string
}

// Server is the kind of a certificate that no file here holds.
const Server = "server"

// Of is the validity of the first certificate to end, of at least one.
func Of(kind, path string, certs []*x509.Certificate, remedy string) Validity {
	first := slices.MinFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return Validity{Kind: kind, Path: path, Subject: first.Subject.String(), End: first.NotAfter, Remedy: remedy}
}

// Parse reads the certificates of PEM data and skips what else is in it; without one it is an error.
func Parse(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return certs, nil
}

// Notice says in words that the certificate ends within [Notice] of now, or has ended; "" while there is more time.
func (v Validity) Notice(now time.Time) string {
	left := v.End.Sub(now)
	what := fmt.Sprintf("the %s file %s holds a certificate (%s) that ", v.Kind, v.Path, v.Subject)
	if v.Kind == Server {
		what = fmt.Sprintf("the server %s shows a certificate (%s) that ", v.Path, v.Subject)
	}
	switch {
	case left < 0:
		return what + "expired on " + date(v.End)
	case left < 48*time.Hour:
		return what + "expires on " + date(v.End) + ", within two days"
	case left < Notice:
		return fmt.Sprintf("%sexpires on %s, in %d days", what, date(v.End), int(left/(24*time.Hour)))
	}
	return ""
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Notices are those of several, each with what to do.
func Notices(all []Validity, now time.Time) []string {
	var out []string
	for _, v := range all {
		if text := v.Notice(now); text != "" {
			out = append(out, text+"; "+v.Remedy)
		}
	}
	return out
}
