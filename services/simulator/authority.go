package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority for tests and demonstrations: ECDSA
// P-256 keys, made anew each time, valid for a year. Its key is in memory
// only. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// Flaw is what is wrong with a certificate.
type Flaw int

// The flaws that a client has to notice.
const (
	Sound     Flaw = iota
	Expired        // since an hour
	WrongName      // for another host
)

// NewAuthority makes an authority with this common name.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority %s: make key: %w", name, err)
	}
	tmpl, err := certificateTemplate(name)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: sign: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority %s: read back: %w", name, err)
	}
	return &Authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func certificateTemplate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("certificate %s: make serial number: %w", name, err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Simulator"}},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}, nil
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// Pool returns a pool that trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Server makes a server certificate for 127.0.0.1, ::1, localhost and the
// given names or addresses.
func (a *Authority) Server(flaw Flaw, names ...string) (tls.Certificate, error) {
	names = append([]string{"127.0.0.1", "::1", "localhost"}, names...)
	if flaw == WrongName {
		names = []string{"elsewhere.invalid"}
	}
	return a.issue(names[len(names)-1], flaw, x509.ExtKeyUsageServerAuth, names)
}

// Client makes a client certificate with this common name.
func (a *Authority) Client(flaw Flaw, name string) (tls.Certificate, error) {
	return a.issue(name, flaw, x509.ExtKeyUsageClientAuth, nil)
}

func (a *Authority) issue(name string, flaw Flaw, use x509.ExtKeyUsage, names []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: make key: %w", name, err)
	}
	tmpl, err := certificateTemplate(name)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{use}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	if flaw == Expired {
		tmpl.NotAfter = time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: sign: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: read back: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// WriteChain writes the authority's certificate to dir/name.
func (a *Authority) WriteChain(dir, name string) error {
	return writeFile(filepath.Join(dir, name), a.pem, 0o644)
}

// WritePair writes a certificate to dir/name.crt and its key to dir/name.key,
// the latter with mode 0600.
func WritePair(dir, name string, cert tls.Certificate) error {
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("certificate %s: encode key: %w", name, err)
	}
	if err := writeFile(filepath.Join(dir, name+".crt"), chain, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}

// writeFile replaces a file; the mode holds also where one was there before.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// OpenAuthority reads the authority kept in path.crt and path.key, or makes a
// new one and keeps it there (the key with mode 0600), so that certificates
// given out stay good over a restart.
func OpenAuthority(path, name string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(path+".crt", path+".key")
	if err == nil {
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || pair.Leaf == nil || !pair.Leaf.IsCA {
			return nil, fmt.Errorf("authority %s: %s.crt is no certificate of an authority made here; remove it", name, path)
		}
		return &Authority{cert: pair.Leaf, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})}, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("authority %s: read %s.crt and .key: %w", name, path, err)
	}
	a, err := NewAuthority(name)
	if err != nil {
		return nil, err
	}
	return a, WritePair(filepath.Dir(path), filepath.Base(path), tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key})
}
