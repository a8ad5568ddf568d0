package simulator

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// assertionType is the only one that Microsoft's token endpoint knows.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// clockSkew is how far the clocks of both sides may differ.
const clockSkew = 5 * time.Minute

// refusal is an error of the token endpoint.
type refusal struct {
	kind string
	code int
	text string
}

func (r *refusal) write(w http.ResponseWriter) {
	writeLoginError(w, http.StatusUnauthorized, r.kind, r.code, r.text)
}

// refuses checks the assertion of a token request that was sent to endpoint;
// nil means that it is good.
func (a App) refuses(form url.Values, endpoint string) *refusal {
	if form.Get("client_assertion_type") != assertionType {
		return &refusal{"invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type'."}
	}
	assertion := strings.TrimSpace(form.Get("client_assertion"))
	if a.Federated != "" && assertion == a.Federated {
		return nil
	}
	if len(a.Certificates) == 0 && a.Issuers == nil {
		return &refusal{"invalid_client", 700213, "No matching federated identity record found for presented assertion subject. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."}
	}
	invalid := func(why string) *refusal {
		return &refusal{"invalid_client", 700027, "Client assertion failed signature validation. " + why}
	}
	var header struct {
		Algorithm  string   `json:"alg"`
		Thumbprint string   `json:"x5t#S256"`
		Chain      [][]byte `json:"x5c"` // base64, as encoding/json reads bytes
	}
	var claims struct {
		Audience  string `json:"aud"`
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		ID        string `json:"jti"`
		Expires   int64  `json:"exp"`
		NotBefore int64  `json:"nbf"`
	}
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		return &refusal{"invalid_client", 50027, "JWT token is invalid or malformed."}
	}
	cert := a.registered(header.Thumbprint, header.Chain)
	if cert == nil {
		return invalid("[Reason - The key was not found., Thumbprint of key used by client: '" + header.Thumbprint + "'.]")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ok || err != nil || header.Algorithm != "PS256" ||
		rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, nil) != nil {
		return invalid("[Reason - The key was found, but use of the key to verify the signature failed.]")
	}
	now := time.Now()
	switch {
	case now.After(cert.NotAfter) || now.Before(cert.NotBefore):
		return invalid("[Reason - The certificate is not within its valid time range.]")
	case claims.Audience != endpoint:
		return &refusal{"invalid_client", 700023, "Client assertion audience claim does not match Realm issuer."}
	case !strings.EqualFold(claims.Issuer, a.ClientID) || claims.Subject != claims.Issuer || claims.ID == "":
		return &refusal{"invalid_client", 700021, "Client assertion application identifier doesn't match 'client_id' parameter."}
	case now.Add(-clockSkew).After(time.Unix(claims.Expires, 0)) || now.Add(clockSkew).Before(time.Unix(claims.NotBefore, 0)):
		return &refusal{"invalid_client", 700024, "Client assertion is not within its valid time range."}
	}
	return nil
}

// registered finds the certificate that an assertion names.
func (a App) registered(thumbprint string, chain [][]byte) *x509.Certificate {
	// Microsoft's libraries write it in either form of base64, and both are taken.
	thumbprint = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(thumbprint)
	for _, c := range a.Certificates {
		if sum := sha256.Sum256(c.Raw); base64.RawURLEncoding.EncodeToString(sum[:]) == thumbprint {
			return c
		}
	}
	if a.Issuers == nil || len(chain) == 0 {
		return nil
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil || leaf.Subject.CommonName != a.Subject {
		return nil
	}
	between := x509.NewCertPool()
	for _, der := range chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Issuers, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil
	}
	return leaf
}

// decodePart reads one part of a JWT.
func decodePart(part string, to any) bool {
	data, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(data, to) == nil
}
