package simulator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resourcegraph/armresourcegraph"

	"defenderiot/services/simulator"
)

func newSimulator(t *testing.T, o simulator.Options) *simulator.Simulator {
	t.Helper()
	s, err := simulator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for range 2 {
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// What WriteConfig writes must be enough to reach every part.
func TestWrittenFilesReachTheSimulator(t *testing.T) {
	s := newSimulator(t, simulator.Options{Backfill: 1234, Host: "localhost", Quota: simulator.AzureQuota()})
	dir := t.TempDir()
	if err := s.WriteConfig(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteConfig(dir); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"authority_host: " + s.AzureURL(), `ca_file: "azure-ca.crt"`, `chain: "chain.crt"`, `address: "localhost"`} {
		if !strings.Contains(string(config), want) {
			t.Errorf("config.yaml lacks %s:\n%s", want, config)
		}
	}
	certs := filepath.Join(dir, "certs")
	if info, err := os.Stat(filepath.Join(certs, "simulated_domain.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info, err)
	}
	readFromAzure(t, s, filepath.Join(certs, "azure-ca.crt"))
	deliverToDevo(t, s, certs)
}

func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s", path)
	}
	return p
}

func readFromAzure(t *testing.T, s *simulator.Simulator, ca string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, ca)}}
	defer transport.CloseIdleConnections()
	options := azcore.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: s.AzureURL(),
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: s.AzureURL(), Audience: simulator.Audience}},
		},
		Transport: &http.Client{Transport: transport},
	}
	cred, err := azidentity.NewClientSecretCredential(simulator.TenantID, simulator.ClientID, simulator.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := armresourcegraph.NewClient(cred, &arm.ClientOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	query := strings.Replace(steadyQuery, "2026-11-20T10", "2000-01-01T00", 1)
	pages := readAll(t, client, ask{query: query})
	if got := len(ids(pages...)); got != 1234 || pages[1].header.Get("x-ms-user-quota-remaining") != "13" {
		t.Errorf("%d alerts, headers %v", got, pages[1].header)
	}
}

func deliverToDevo(t *testing.T, s *simulator.Simulator, certs string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, "simulated_domain.crt"), filepath.Join(certs, "simulated_domain.key"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", s.Devo.Addr(), &tls.Config{
		RootCAs: pool(t, filepath.Join(certs, "chain.crt")), Certificates: []tls.Certificate{pair}, ServerName: "localhost",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rows := s.Graph.Rows()
	for _, row := range rows[:1000] {
		body := strings.NewReplacer("\n", "", "\t", "").Replace(string(row.JSON))
		if _, err := io.WriteString(conn, "<14>2026-11-22 19:04:06.436 vm edr.microsoft_defender.iot_security.alert: "+body+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(conn.CloseWrite(), conn.NetConn().(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	if stats := s.Stats(); stats.Missing != 234 || stats.Devo.Unique != 1000 || stats.Graph.Alerts != 1234 || stats.Tokens != 1 {
		t.Errorf("stats %+v", stats)
	}
}

func TestAuthoritiesSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	first, err := simulator.OpenAuthority(filepath.Join(dir, "a"), "a")
	if err != nil {
		t.Fatal(err)
	}
	second, err := simulator.OpenAuthority(filepath.Join(dir, "a"), "a")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := second.Server(simulator.Sound)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: first.Pool()}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := simulator.OpenAuthority(filepath.Join(dir, "a"), "a"); err == nil {
		t.Error("a broken key was accepted")
	}
}

func TestControl(t *testing.T) {
	s := newSimulator(t, simulator.Options{ControlListen: "127.0.0.1:0"})
	defer http.DefaultClient.CloseIdleConnections()
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.ControlURL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/alerts", `{"count": 20}`, 200, `"added": 20`},
		{"POST", "/alerts", `{"odd": "null-start"}`, 200, `"added": 1`},
		{"POST", "/alerts", ``, 200, `"added": 1`},
		{"POST", "/alerts", `{"number": 20}`, 400, "number"},
		{"POST", "/alerts", `{"count": 99999999}`, 400, "at most"},
		{"GET", "/missing", ``, 200, `"count": 22`},
		{"POST", "/fail/graph", `{"answers": 2, "status": 503, "delay": "1ms"}`, 200, "accepted"},
		{"POST", "/fail/graph", `{"delay": "long"}`, 400, "duration"},
		{"POST", "/fail/login", `{"status": 500}`, 200, "accepted"},
		{"POST", "/fail/devo", `{"after_frames": 10, "stall": "3s", "end": "reset"}`, 200, "accepted"},
		{"POST", "/fail/devo", `{"ending": "reset"}`, 400, "ending"},
		{"DELETE", "/fail", ``, 200, "cleared"},
		{"POST", "/devo/away", ``, 200, "true"},
		{"POST", "/devo/back", ``, 200, "false"},
		{"POST", "/tokens/expire", ``, 200, "true"},
		{"GET", "/nothing", ``, 404, ""},
	} {
		if status, text := call(tt.method, tt.path, tt.body); status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s %s %s: %d %s; want %d with %s", tt.method, tt.path, tt.body, status, text, tt.status, tt.want)
		}
	}
	var stats simulator.Stats
	if _, text := call("GET", "/stats", ""); json.Unmarshal([]byte(text), &stats) != nil || stats.Missing != 22 {
		t.Errorf("stats %s", text)
	}
}

func TestCloseDropsAStalledAnswer(t *testing.T) {
	s := newSimulator(t, simulator.Options{Rate: 500})
	eventually(t, "alerts", func() bool { return s.Graph.Len() > 0 })
	s.Login.Fail(simulator.Fault{Stall: true})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.AzureAuthority().Pool()}}
	defer transport.CloseIdleConnections()
	gone := make(chan error, 1)
	go func() {
		resp, err := (&http.Client{Transport: transport}).Get(s.AzureURL() + "/" + simulator.TenantID + "/v2.0/.well-known/openid-configuration")
		if err == nil {
			err = resp.Body.Close()
		}
		gone <- err
	}()
	time.Sleep(50 * time.Millisecond) // whether it is answered or not, Close must end
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	<-gone
}

func TestStartReportsATakenAddress(t *testing.T) {
	first := newSimulator(t, simulator.Options{})
	s, err := simulator.New(simulator.Options{DevoListen: first.Devo.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err == nil || !strings.Contains(err.Error(), first.Devo.Addr()) {
		t.Errorf("error %v, want one that names %s", err, first.Devo.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}
