package collector_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/services/fetcher"
	"defenderiot/services/simulator"
)

// running is a client as a running fetcher has it.
type running struct {
	*resourcegraph.Client
	t   *testing.T
	log bytes.Buffer
}

func (s *site) run() *running {
	s.t.Helper()
	c, _, err := config.Load(config.Options{Path: s.dir + "/config.yaml", Workdir: s.dir})
	if err != nil {
		s.t.Fatal(err)
	}
	r := &running{t: s.t}
	if r.Client, err = fetcher.Client(c, config.InputName, slog.New(slog.NewTextHandler(&r.log, nil)), noop.Meter{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(r.Close)
	return r
}

func (r *running) page() error {
	_, err := r.Page(r.t.Context(), resourcegraph.Query{Text: resourcegraph.WindowQuery(time.Now().Add(-time.Hour), time.Time{}), Top: 1})
	return err
}

func (r *running) works() {
	r.t.Helper()
	if err := r.page(); err != nil {
		r.t.Errorf("%v (%s)\n%s", err, fault.Hint(err), r.log.String())
	}
}

func (r *running) refused(text string) {
	r.t.Helper()
	err := r.page()
	var named *fault.Error
	if !errors.As(err, &named) || named.Type != fault.TypeSetup || named.Code != 101 || !strings.Contains(err.Error(), text) || named.Hint == "" {
		r.t.Errorf("got %v, want SetupError 101 with %s and a hint", err, text)
	}
}

// A replaced secret is in use at the next token, and one that is not good is told by its name.
func TestSecretReplacedWhileRunning(t *testing.T) {
	for name, tt := range map[string]struct {
		secret string // in the configuration, % stands for the folder
		file   string
		line   string // of the file, before the secret
	}{
		"in its file":             {"file://%/secret", "secret", ""},
		"in the environment file": {"${THE_SECRET}", "credentials/.env", "# of the collector\nOTHER=x\nexport THE_SECRET="},
		"in a file named there":   {"file://${FOLDER}/secret", "secret", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, simulator.Options{})
			t.Setenv("FOLDER", s.dir)
			t.Setenv("THE_SECRET", "what the process started with")
			put := func(secret string) { s.write(tt.file, []byte(tt.line+secret+"\n")) }
			put(simulator.ClientSecret)
			s.configure("{" + application("client_secret: \""+strings.ReplaceAll(tt.secret, "%", s.dir)+"\"") + "}")
			r := s.run()
			r.works()
			s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Secret: rotated})
			r.works() // with the token it has
			s.Login.ExpireTokens()
			r.refused("AADSTS7000215")
			put(rotated)
			r.works()
			put("half-written")
			s.Login.ExpireTokens()
			r.refused("AADSTS7000215")
			put("")
			r.refused("AADSTS7000215") // the one before
			put(rotated)
			r.works()
			if log := r.log.String(); !strings.Contains(log, "the credential has changed") || !strings.Contains(log, "stays in use") ||
				strings.Contains(log, rotated) || strings.Contains(log, simulator.ClientSecret) {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

func TestCertificateReplacedWhileRunning(t *testing.T) {
	s := newSite(t, simulator.Options{})
	first, _ := appCertificate(t)
	second, _ := appCertificate(t)
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Certificates: []*x509.Certificate{first.Leaf}})
	s.write("certs/app.pem", asPEM(t, first, true))
	s.configure("{" + application("client_certificate: app.pem") + "}")
	r := s.run()
	r.works()
	before := r.Identity()
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Certificates: []*x509.Certificate{second.Leaf}})
	s.Login.ExpireTokens()
	r.refused("AADSTS700027")
	s.write("certs/app.pem", asPEM(t, second, true))
	r.works()
	if r.Identity() == before || !strings.HasPrefix(r.Identity(), "client certificate (thumbprint ") {
		t.Errorf("first %s, then %s", before, r.Identity())
	}
}

func TestTokenFileReplacedWhileRunning(t *testing.T) {
	s := newSite(t, simulator.Options{})
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Federated: "first.token"})
	file := s.write("token", []byte("first.token"))
	s.configure("{" + application("workload_identity: {token_file: "+file+"}") + "}")
	r := s.run()
	r.works()
	s.Login.SetApp(simulator.App{ClientID: simulator.ClientID, Federated: "second.token"})
	s.Login.ExpireTokens()
	r.refused("AADSTS700213")
	s.write("token", []byte("second.token"))
	r.works()
	if issued := s.Login.Issued(); issued != 2 {
		t.Errorf("%d tokens were issued, want 2", issued)
	}
}

func TestManagedIdentityAfterARevokedToken(t *testing.T) {
	s := newSite(t, simulator.Options{})
	m, url := s.metadata()
	t.Setenv("IDENTITY_ENDPOINT", url+simulator.AppServicePath)
	t.Setenv("IDENTITY_HEADER", "the-header")
	s.configure("{managed_identity: {client_id: user-client}}")
	r := s.run()
	r.works()
	before := len(m.Given())
	s.Login.ExpireTokens()
	r.works()
	r.works()
	if given := len(m.Given()); given != before+1 {
		t.Errorf("%d tokens after the revocation, want 1", given-before)
	}
}
