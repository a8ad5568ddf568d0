package resourcegraph

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the thumbprint that Azure shows
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"defenderiot/pkg/fault"
)

// parseCertificate reads PEM or PKCS#12, by the content. The password is for PKCS#12; PEM has no use for
// it. The SDK's own reader of PKCS#12 knows neither AES nor SHA-256, which is what openssl writes today.
func parseCertificate(data []byte, password string) ([]*x509.Certificate, *rsa.PrivateKey, error) {
	var certs []*x509.Certificate
	var key crypto.PrivateKey
	var err error
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		if err := plainKey(data); err != nil {
			return nil, nil, err
		}
		certs, key, err = azidentity.ParseCertificates(data, nil)
	} else {
		var leaf *x509.Certificate
		key, leaf, certs, err = pkcs12.DecodeChain(data, password)
		certs = append([]*x509.Certificate{leaf}, certs...)
		switch {
		case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
			err = fault.WithHint(errors.New("the file needs a password"), "set client_certificate_password, for example as file:///run/secrets/name.")
		case errors.Is(err, pkcs12.ErrIncorrectPassword):
			err = fault.WithHint(errors.New("the password is wrong"), "client_certificate_password must be the one with which the PKCS#12 file was written; look for a line break or a blank at its end.")
		case err != nil:
			err = fault.WithHint(fmt.Errorf("it is neither PEM nor PKCS#12: %w", err), "client_certificate needs the certificate with its private key, as PEM or as PKCS#12 (.pfx, .p12).")
		}
	}
	if err != nil {
		return nil, nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("its private key is %T; Microsoft Entra ID takes RSA keys only", key)
	}
	for _, c := range certs {
		if private.PublicKey.Equal(c.PublicKey) {
			return certs, private, nil
		}
	}
	return nil, nil, errors.New("the private key belongs to none of its certificates")
}

// plainKey says what is wrong with PEM that holds an encrypted key.
func plainKey(data []byte) error {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "" {
			return fault.WithHint(errors.New("its private key is encrypted within PEM"),
				"write certificate and key as PKCS#12 (openssl pkcs12 -export) and set client_certificate_password, or remove the encryption (openssl pkey).")
		}
	}
	return nil
}

// describe names the certificate of key as Azure's portal does.
func describe(certs []*x509.Certificate, key *rsa.PrivateKey) string {
	for _, c := range certs {
		if key.PublicKey.Equal(c.PublicKey) {
			verb := "expires"
			if time.Now().After(c.NotAfter) {
				verb = "expired"
			}
			//nolint:gosec // names the certificate, proves nothing
			return fmt.Sprintf("thumbprint %X, %s %s", sha1.Sum(c.Raw), verb, c.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	return "no certificate"
}
