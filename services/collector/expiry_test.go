package collector_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

// authorityUntil is a CA certificate that ends then.
func authorityUntil(t *testing.T, name string, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestCheckNamesCertificatesThatEndSoon adds authorities to the chain file: the check passes in each case.
func TestCheckNamesCertificatesThatEndSoon(t *testing.T) {
	s := newSite(t, simulator.Options{})
	const chain = "certs/chain.crt"
	original, err := os.ReadFile(filepath.Join(s.dir, chain))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		left time.Duration // of the added one; 0: none
		want string
	}{
		{"none", 0, ""},
		{"next year", 365 * 24 * time.Hour, ""},
		{"soon", 10*24*time.Hour + time.Hour, ", in 10 days; "},
		{"over", -time.Hour, ") that expired on "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := original
			if tt.left != 0 {
				text = append(bytes.Clone(original), authorityUntil(t, "old authority", time.Now().Add(tt.left))...)
			}
			s.write(chain, text)
			output, code := s.check()
			if code != 0 || !strings.Contains(output, "ok      output ") {
				t.Errorf("exit code %d:\n%s", code, output)
			}
			line := "        warning: the chain file " + chain + " holds a certificate (CN=old authority) that "
			if strings.Contains(output, line) != (tt.want != "") || !strings.Contains(output, tt.want) {
				t.Errorf("want %q:\n%s", tt.want, output)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		s.write(chain, append(bytes.Clone(original), authorityUntil(t, "old authority", time.Now().Add(time.Hour))...))
		t.Chdir(s.dir)
		var out bytes.Buffer
		cmd := collector.Command(&out, &out)
		cmd.SetArgs([]string{"check", "--json", "--config", "config.yaml"})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%v:\n%s", err, out.String())
		}
		var got struct {
			Passed bool             `json:"passed"`
			Steps  []collector.Step `json:"steps"`
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v:\n%s", err, out.String())
		}
		last := got.Steps[len(got.Steps)-1]
		if !got.Passed || !last.Passed || len(last.Warnings) != 1 || !strings.Contains(last.Warnings[0], "within two days") {
			t.Errorf("%+v", last)
		}
	})
}

// The certificate that signs in is told of in the same way; another one in its file ends first.
func TestCheckNamesAClientCertificateThatEndsSoon(t *testing.T) {
	s := newSite(t, simulator.Options{})
	cert, _ := appCertificate(t)
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Certificates: []*x509.Certificate{cert.Leaf}})
	s.configure("{" + application("client_certificate: app.pem") + "}")
	for _, left := range []time.Duration{365 * 24 * time.Hour, 10*24*time.Hour + time.Hour} {
		s.write("certs/app.pem", append(asPEM(t, cert, false), authorityUntil(t, "old issuer", time.Now().Add(left))...))
		output, code := s.check()
		line := "        warning: the client_certificate file certs/app.pem holds a certificate (CN=old issuer) that expires on "
		if code != 0 || strings.Contains(output, line) != (left < 30*24*time.Hour) {
			t.Errorf("%v left: exit code %d:\n%s", left, code, output)
		}
	}
}
