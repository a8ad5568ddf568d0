package devo

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	hintDownload = "download it from Devo: Administration, Credentials, X.509 certificates"
	hintCut      = "if it is being written just now, the next try takes it up; else " + hintDownload
)

// systemRoots returns the system's CAs.
func systemRoots() *x509.CertPool {
	roots, err := x509.SystemCertPool()
	if err != nil {
		// A minimal container has no CA bundle; the chain file is then the only trust there is.
		roots = x509.NewCertPool()
	}
	return roots
}

// readChain returns the CAs of the chain file.
func readChain(chain string) ([]*x509.Certificate, error) {
	text, err := readFile("chain", chain)
	if err != nil {
		return nil, err
	}
	cas := certificates(text)
	if len(cas) == 0 {
		return nil, failure(FileInvalid, nil, hintDownload, "the chain file %s holds no PEM certificate", chain)
	}
	if isCut(text) {
		return nil, failure(FileInvalid, nil, hintCut, "the chain file %s ends in the middle of a certificate", chain)
	}
	return cas, nil
}

// readKeyPair returns our certificate, whatever its dates.
func readKeyPair(certFile, keyFile string) (*tls.Certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, failure(BadSettings, nil, "set both cert and key of the output, or neither",
			"the client certificate (%q) and its key (%q) belong together", certFile, keyFile)
	}
	certText, err := readFile("cert", certFile)
	if err != nil {
		return nil, err
	}
	keyText, err := readFile("key", keyFile)
	if err != nil {
		return nil, err
	}
	if !hasBlock(certText, "CERTIFICATE") {
		return nil, failure(FileInvalid, nil, hintDownload, "the cert file %s holds no PEM certificate", certFile)
	}
	if !hasBlock(keyText, "PRIVATE KEY") {
		return nil, failure(FileInvalid, nil, hintDownload, "the key file %s holds no PEM private key", keyFile)
	}
	if bytes.Contains(keyText, []byte("ENCRYPTED")) {
		return nil, failure(FileInvalid, nil, "decrypt it: openssl pkey -in KEY -out PLAIN_KEY, and keep that readable for this program only",
			"the key file %s is encrypted", keyFile)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, keyPairFailure(certFile, keyFile, certText, err)
	}
	if isCut(certText) {
		return nil, failure(FileInvalid, nil, hintCut, "the cert file %s ends in the middle of a certificate", certFile)
	}
	return &pair, nil
}

// checkDates returns an error unless our certificate is within its dates at now.
func checkDates(pair *tls.Certificate, certFile string, now time.Time) error {
	leaf := pair.Leaf
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return failure(CertificateExpired, nil, "check this machine's clock; if it is right, "+hintDownload+", and replace cert and key; no restart is needed",
			"our client certificate %s is valid from %s to %s, and it is now %s", certFile, date(leaf.NotBefore), date(leaf.NotAfter), date(now))
	}
	return nil
}

// certificates returns the certificates of a PEM text. What is no certificate is passed over, as
// x509.CertPool does.
func certificates(text []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return out
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, cert)
		}
	}
}

// isCut reports whether a PEM block begins behind the last whole one, as in a file that is being written.
func isCut(text []byte) bool {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return bytes.Contains(text, []byte("-----BEGIN "))
		}
		text = rest
	}
}

// keyPairFailure tells a wrong key from an unreadable one, which tls.X509KeyPair tells in its text only.
func keyPairFailure(certFile, keyFile string, certText []byte, err error) error {
	block, _ := pem.Decode(certText)
	if block != nil && block.Type == "CERTIFICATE" {
		if _, parseErr := x509.ParseCertificate(block.Bytes); parseErr != nil {
			return failure(FileInvalid, parseErr, hintDownload, "the cert file %s holds no certificate that can be read", certFile)
		}
	}
	if strings.Contains(err.Error(), "does not match") {
		return failure(KeyMismatch, err, "use the cert and the key that were downloaded together; if they are being replaced just now, the next try takes them up",
			"the key %s does not belong to the certificate %s", keyFile, certFile)
	}
	return failure(FileInvalid, err, hintDownload, "the certificate %s and the key %s cannot be used", certFile, keyFile)
}

// hasBlock reports whether text has a PEM block whose type ends in kind.
func hasBlock(text []byte, kind string) bool {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, kind) {
			return true
		}
		text = rest
	}
}

// readFile reads one of the endpoint's files; role is its key in the configuration.
func readFile(role, path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		return text, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, failure(FileMissing, err, hintDownload+", and put it there, or correct the output's "+role, "the %s file %s does not exist", role, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, failure(FileUnreadable, err, fmt.Sprintf("chown %d %s, or chmod it so that uid %d may read it (and every directory above it may be entered)", os.Getuid(), path, os.Getuid()), "the %s file %s may not be read by uid %d", role, path, os.Getuid())
	case errors.Is(err, syscall.EISDIR):
		return nil, failure(FileUnreadable, err, "remove the directory and put the file there: a container runtime makes an empty directory when the file to mount is missing",
			"the %s file %s is a directory", role, path)
	}
	return nil, failure(FileUnreadable, err, "check the disk and the mount", "the %s file %s cannot be read", role, path)
}
