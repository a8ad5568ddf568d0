package collector_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"defenderiot/pkg/process"
	"defenderiot/services/collector"
	"defenderiot/services/simulator"
)

const rotated = "another-simulated-secret"

// site is a simulated Azure and a working folder whose configuration points at it.
type site struct {
	*simulator.Simulator
	t        *testing.T
	dir      string
	original []byte // the simulator's configuration
}

// newSite makes one with no credentials in the environment.
func newSite(t *testing.T, o simulator.Options) *site {
	t.Helper()
	for _, name := range []string{
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE",
		"AZURE_TOKEN_CREDENTIALS", "AZURE_AUTHORITY_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
		"IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET", "CONFIG_FILE", "ENV_FILE", "BUS_URL",
	} {
		t.Setenv(name, "") // to be restored
		os.Unsetenv(name)
	}
	o.Backfill = 3
	sim, err := simulator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := sim.Close(ctx); err != nil {
			t.Logf("simulator: %v", err)
		}
	})
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	s := &site{Simulator: sim, t: t, dir: t.TempDir()}
	if err := sim.WriteConfig(s.dir); err != nil {
		t.Fatal(err)
	}
	if s.original, err = os.ReadFile(filepath.Join(s.dir, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	credentialsBlock = regexp.MustCompile(`(?s)    credentials:\n.*?    cloud:`)
	outputsBlock     = regexp.MustCompile(`(?s)outputs:\n.*?inputs:`)
)

// configure gives the input these credentials, "" for none at all.
func (s *site) configure(credentials string) {
	s.t.Helper()
	text := s.original
	if credentials != "" {
		credentials = "    credentials: " + credentials + "\n"
	}
	if !credentialsBlock.Match(text) {
		s.t.Fatalf("no credentials in %s", text)
	}
	text = credentialsBlock.ReplaceAllLiteral(text, []byte(credentials+"    cloud:"))
	text = outputsBlock.ReplaceAllLiteral(text, []byte("outputs:\n  console_1: {type: console}\ninputs:"))
	s.write("config.yaml", text)
}

// write replaces a file in the folder, as a whole.
func (s *site) write(name string, content []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// check runs `collector check` in the folder.
func (s *site) check() (output string, code int) {
	s.t.Helper()
	s.t.Chdir(s.dir)
	var out bytes.Buffer
	cmd := collector.Command(&out, &out)
	cmd.SetArgs([]string{"check", "--config", "config.yaml"})
	err := cmd.ExecuteContext(s.t.Context())
	if err != nil {
		process.Print(&out, "collector", err)
	}
	return out.String(), process.Code(err)
}

// passes demands that the check passes and names this identity.
func (s *site) passes(identity string) {
	s.t.Helper()
	output, code := s.check()
	if code != 0 || !strings.Contains(output, "ok      token for defender_for_iot: "+identity) || !strings.Contains(output, "source is pullable") {
		s.t.Errorf("exit code %d, want the token by %s:\n%s", code, identity, output)
	}
}

// fails demands an exit code and texts in the output.
func (s *site) fails(code int, texts ...string) {
	s.t.Helper()
	output, got := s.check()
	if got != code {
		s.t.Errorf("exit code %d, want %d:\n%s", got, code, output)
	}
	for _, text := range texts {
		if !strings.Contains(output, text) {
			s.t.Errorf("no %q in:\n%s", text, output)
		}
	}
}

func application(of string) string {
	return "tenant_id: " + simulator.TenantID + ", client_id: " + simulator.ClientID + ", " + of
}

// appCertificate makes one with its chain; root is what issued the chain.
func appCertificate(t *testing.T) (cert tls.Certificate, root *simulator.Authority) {
	t.Helper()
	root, err := simulator.NewAuthority("corporate root")
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = root.AppCertificate(simulator.Sound, "the-collector"); err != nil {
		t.Fatal(err)
	}
	return cert, root
}

func asPEM(t *testing.T, cert tls.Certificate, chain bool) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for i, der := range cert.Certificate {
		if i == 0 || chain {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
	}
	return text
}

func TestClientCertificate(t *testing.T) {
	s := newSite(t, simulator.Options{})
	cert, root := appCertificate(t)
	app := simulator.App{ClientID: simulator.ClientID, Certificates: []*x509.Certificate{cert.Leaf}}
	s.Login.SetApp(app)
	s.configure("{" + application("client_certificate: app.pem") + "}")
	s.write("certs/app.pem", asPEM(t, cert, false))
	s.passes("client certificate (thumbprint ")

	t.Run("chain", func(t *testing.T) {
		s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Issuers: root.Pool(), Subject: "the-collector"})
		defer s.Login.SetApp(app)
		s.fails(254, "SetupError [CODE:0101]", "AADSTS700027", "upload the certificate")
		s.write("certs/app.pem", asPEM(t, cert, true))
		s.passes("client certificate (thumbprint ")
	})
	t.Run("another certificate", func(t *testing.T) {
		other, _ := appCertificate(t)
		s.write("certs/app.pem", asPEM(t, other, true))
		s.fails(254, "SetupError [CODE:0101]", "AADSTS700027")
	})
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, encoder := range map[string]*pkcs12.Encoder{"modern": pkcs12.Modern, "legacy": pkcs12.LegacyDES} {
		t.Run("PKCS#12 "+name, func(t *testing.T) {
			data, err := encoder.Encode(cert.PrivateKey, cert.Leaf, []*x509.Certificate{issuer}, "open sesame")
			if err != nil {
				t.Fatal(err)
			}
			s.write("certs/app.pfx", data)
			s.configure("{" + application("client_certificate: app.pfx, client_certificate_password: open sesame") + "}")
			s.passes("client certificate (thumbprint ")
			s.configure("{" + application("client_certificate: app.pfx, client_certificate_password: wrong sesame") + "}")
			s.fails(255, "CollectorConfigurationException [CODE:0006]", "app.pfx: the password is wrong", "hint: client_certificate_password")
			s.configure("{" + application("client_certificate: app.pfx") + "}")
			s.fails(255, "app.pfx: the file needs a password", "hint: set client_certificate_password")
		})
	}
	s.configure("{" + application("client_certificate: none.pfx") + "}")
	s.fails(255, "CollectorConfigurationException [CODE:0006]", "certs/none.pfx: no such file")
}

// metadata serves the stand-in for managed identities.
func (s *site) metadata() (*simulator.Metadata, string) {
	m := simulator.NewMetadata(s.Login, "the-header",
		&simulator.Identity{ClientID: "system-client"},
		simulator.Identity{ClientID: "user-client", ObjectID: "user-object", ResourceID: "/subscriptions/s/identities/user"})
	server := httptest.NewServer(m)
	s.t.Cleanup(server.Close)
	return m, server.URL
}

func TestManagedIdentity(t *testing.T) {
	for _, place := range []string{"virtual machine", "App Service"} {
		t.Run(place, func(t *testing.T) {
			s := newSite(t, simulator.Options{})
			m, url := s.metadata()
			if place == "App Service" {
				t.Setenv("IDENTITY_ENDPOINT", url+simulator.AppServicePath)
				t.Setenv("IDENTITY_HEADER", "the-header")
			} else {
				t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)
			}
			s.configure("{managed_identity: {}}")
			s.passes("managed identity (system-assigned)")
			s.configure("{managed_identity: {client_id: user-client}}")
			s.passes("managed identity (client id user-client)")
			s.configure("{client_id: user-client, managed_identity: {}}")
			s.passes("managed identity (client id user-client)")
			s.configure("{managed_identity: {object_id: user-object}}")
			s.passes("managed identity (object id user-object)")
			s.configure("{managed_identity: {resource_id: /subscriptions/s/identities/user}}")
			s.passes("managed identity (resource id /subscriptions/s/identities/user)")
			if given := m.Given(); len(given) == 0 || given[0] != "system-client" || given[len(given)-1] != "user-client" {
				t.Errorf("tokens were given to %v", given)
			}
			s.configure("{managed_identity: {client_id: unknown}}")
			s.fails(254, "SetupError [CODE:0101]", "the managed identity endpoint", "hint: Assign a managed identity")
		})
	}
}

func TestWorkloadIdentity(t *testing.T) {
	s := newSite(t, simulator.Options{})
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Federated: "token.of.kubernetes"})
	file := s.write("token", []byte("token.of.kubernetes\n"))
	s.configure("{" + application("workload_identity: {token_file: "+file+"}") + "}")
	s.passes("workload identity (token file " + file + ")")

	s.configure("{workload_identity: {}}")
	s.fails(255, "no client ID specified")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	t.Setenv("AZURE_TENANT_ID", simulator.TenantID)
	t.Setenv("AZURE_CLIENT_ID", simulator.ClientID)
	s.passes("workload identity (token file " + file + ")")
	s.write("token", []byte("token.of.another"))
	s.fails(254, "SetupError [CODE:0101]", "AADSTS700213", "hint: No federated credential")
}

func TestDefaultChain(t *testing.T) {
	s := newSite(t, simulator.Options{})
	s.configure("")
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod") // not the tools of whoever runs this test
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
	s.fails(254, "SetupError [CODE:0101]", "the default credential chain", "hint: Configure credentials")

	t.Run("environment", func(t *testing.T) {
		t.Setenv("AZURE_TENANT_ID", simulator.TenantID)
		t.Setenv("AZURE_CLIENT_ID", simulator.ClientID)
		t.Setenv("AZURE_CLIENT_SECRET", simulator.ClientSecret)
		s.passes("default chain: EnvironmentCredential")
		s.configure("{}")
		s.passes("default chain: EnvironmentCredential")
		t.Setenv("AZURE_CLIENT_SECRET", "wrong-simulated-secret")
		s.fails(254, "SetupError [CODE:0101]", "AADSTS7000215")
	})
	t.Run("managed identity", func(t *testing.T) {
		_, url := s.metadata()
		t.Setenv("IDENTITY_ENDPOINT", url+simulator.AppServicePath)
		t.Setenv("IDENTITY_HEADER", "the-header")
		s.passes("default chain: ManagedIdentityCredential")
	})
	s.configure("{tenant_id: contoso.com, client_id: forgotten}")
	s.fails(255, "exactly one of client_secret, client_certificate, managed_identity and workload_identity")
}
