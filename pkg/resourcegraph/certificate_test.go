package resourcegraph

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"defenderiot/pkg/fault"
)

func selfSigned(t *testing.T, key crypto.Signer, until time.Time) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestParseCertificate(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	year := time.Now().AddDate(1, 0, 0)
	leaf, foreign := selfSigned(t, key, year), selfSigned(t, other, year)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	private := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return block("PRIVATE KEY", der)
	}
	archive := func(e *pkcs12.Encoder, key any, cert *x509.Certificate, more ...*x509.Certificate) []byte {
		data, err := e.Encode(key, cert, more, "pass")
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	cert, chain := block("CERTIFICATE", leaf.Raw), block("CERTIFICATE", foreign.Raw)
	for name, tc := range map[string]struct {
		data     []byte
		password string
		certs    int    // 0: an error
		text     string // of the error
		hint     string
	}{
		"PEM":                     {slices.Concat(cert, private(key)), "", 1, "", ""},
		"PEM, the key first":      {slices.Concat(private(key), cert), "", 1, "", ""},
		"PEM, PKCS#1 key":         {slices.Concat(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), cert), "", 1, "", ""},
		"PEM with chain":          {slices.Concat(cert, chain, private(key)), "", 2, "", ""},
		"PEM, the chain first":    {slices.Concat(chain, cert, private(key)), "", 2, "", ""},
		"PEM, needless password":  {slices.Concat(cert, private(key)), "pass", 1, "", ""},
		"PEM without a key":       {cert, "", 0, "no private key", ""},
		"PEM without certificate": {private(key), "", 0, "no certificate", ""},
		"PEM, encrypted key":      {slices.Concat(cert, block("ENCRYPTED PRIVATE KEY", []byte("x"))), "pass", 0, "encrypted within PEM", "openssl pkcs12 -export"},
		"PEM, elliptic key":       {slices.Concat(chain, private(other)), "", 0, "RSA keys only", ""},
		"PEM, another's key":      {slices.Concat(chain, private(key)), "", 0, "belongs to none", ""},
		"PKCS#12 of today":        {archive(pkcs12.Modern2023, key, leaf), "pass", 1, "", ""},
		"PKCS#12 with chain":      {archive(pkcs12.Modern2023, key, leaf, foreign), "pass", 2, "", ""},
		"PKCS#12 of 2026":         {archive(pkcs12.Modern2026, key, leaf), "pass", 1, "", ""},
		"PKCS#12 of Windows":      {archive(pkcs12.LegacyDES, key, leaf, foreign), "pass", 2, "", ""},
		"PKCS#12 with RC2":        {archive(pkcs12.LegacyRC2, key, leaf), "pass", 1, "", ""},
		"PKCS#12, wrong password": {archive(pkcs12.Modern2023, key, leaf), "word", 0, "the password is wrong", "line break"},
		"PKCS#12, no password":    {archive(pkcs12.Modern2023, key, leaf), "", 0, "needs a password", "client_certificate_password"},
		"PKCS#12, elliptic key":   {archive(pkcs12.Modern2023, other, foreign), "pass", 0, "RSA keys only", ""},
		"neither":                 {[]byte("hello"), "", 0, "neither PEM nor PKCS#12", "with its private key"},
		"empty":                   {nil, "", 0, "neither PEM nor PKCS#12", ""},
	} {
		t.Run(name, func(t *testing.T) {
			certs, got, err := parseCertificate(tc.data, tc.password)
			if tc.certs == 0 {
				if err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(fault.Hint(err), tc.hint) {
					t.Errorf("%v, hint %q", err, fault.Hint(err))
				}
				return
			}
			if err != nil || len(certs) != tc.certs || !got.Equal(key) || !strings.HasSuffix(describe(certs, got), "expires "+year.UTC().Format(time.DateOnly)) {
				t.Errorf("%v, %d certificates", err, len(certs))
			}
		})
	}
	if text := describe([]*x509.Certificate{selfSigned(t, key, time.Now().Add(-time.Hour))}, key); !strings.Contains(text, "expired ") {
		t.Errorf("an expired one is %s", text)
	}
}
