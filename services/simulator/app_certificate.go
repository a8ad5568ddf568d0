package simulator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// AppCertificate makes a certificate with which an application signs in at
// the login endpoint: RSA, which that insists on. It is signed by this
// authority through an intermediate one, which stands behind it in the chain.
func (a *Authority) AppCertificate(flaw Flaw, name string) (tls.Certificate, error) {
	middle, err := a.issueAuthority(name + " issuer")
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: make key: %w", name, err)
	}
	return middle.sign(key, name, flaw)
}

// issueAuthority makes an authority below this one.
func (a *Authority) issueAuthority(name string) (*Authority, error) {
	below, err := NewAuthority(name)
	if err != nil {
		return nil, err
	}
	tmpl := *below.cert
	tmpl.AuthorityKeyId = nil
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, a.cert, below.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: sign: %w", name, err)
	}
	if below.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("authority %s: read back: %w", name, err)
	}
	return below, nil
}

func (a *Authority) sign(key crypto.Signer, name string, flaw Flaw) (tls.Certificate, error) {
	tmpl, err := certificateTemplate(name)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	if flaw == Expired {
		tmpl.NotAfter = tmpl.NotBefore.Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: sign: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: read back: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
