package collector_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"defenderiot/services/simulator"
)

// azureName resolves at the proxy only.
const azureName = "azure.simulated.invalid"

// connectProxy is a proxy that leads every CONNECT to this machine, and the hosts that it was asked for.
type connectProxy struct {
	*httptest.Server
	mu    sync.Mutex
	hosts []string
}

func newConnectProxy(t *testing.T) *connectProxy {
	t.Helper()
	p := &connectProxy{}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.hosts = append(p.hosts, r.Host)
	p.mu.Unlock()
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil || r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	to, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	if _, err := io.WriteString(from, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
			_ = pair[1].Close()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}

func (p *connectProxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.hosts)
}

// checkAlone runs `collector check` in a process of its own: a process reads the proxy's variables once.
func (s *site) checkAlone(variables ...string) (output string, passed bool) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), os.Args[0], "-test.run=^TestCheckAlone$")
	cmd.Env = append(os.Environ(), "CHECK_ALONE="+s.dir)
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		cmd.Env = append(cmd.Env, name+"=", strings.ToLower(name)+"=")
	}
	cmd.Env = append(cmd.Env, variables...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestCheckAlone is that process; by itself it does nothing.
func TestCheckAlone(t *testing.T) {
	dir := os.Getenv("CHECK_ALONE")
	if dir == "" {
		t.SkipNow()
	}
	s := &site{t: t, dir: dir}
	if output, code := s.check(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, output)
	}
}

func TestProxyFromTheEnvironment(t *testing.T) {
	s := newSite(t, simulator.Options{Host: azureName})
	s.configure("{" + application("client_secret: "+simulator.ClientSecret) + "}")
	p := newConnectProxy(t)
	host := strings.TrimPrefix(s.AzureURL(), "https://")

	if output, passed := s.checkAlone("HTTPS_PROXY=" + p.URL); !passed {
		t.Fatalf("through the proxy:\n%s", output)
	}
	if seen := p.seen(); len(seen) == 0 || slices.ContainsFunc(seen, func(h string) bool { return h != host }) || s.Login.Issued() != 1 {
		t.Errorf("the proxy was asked for %v, want %s; %d tokens", seen, host, s.Login.Issued())
	}
	before := len(p.seen())
	output, passed := s.checkAlone("HTTPS_PROXY="+p.URL, "NO_PROXY="+azureName)
	if passed || len(p.seen()) != before || !strings.Contains(output, "hint: The host name does not resolve") {
		t.Errorf("NO_PROXY: the proxy was asked %d times more\n%s", len(p.seen())-before, output)
	}

	// The metadata service is this machine's own.
	m, url := s.metadata()
	s.configure("{managed_identity: {client_id: user-client}}")
	if output, passed := s.checkAlone("HTTPS_PROXY="+p.URL, "HTTP_PROXY="+p.URL, "AZURE_POD_IDENTITY_AUTHORITY_HOST="+url); !passed {
		t.Errorf("a managed identity:\n%s", output)
	}
	if len(m.Given()) != 1 || slices.ContainsFunc(p.seen(), func(h string) bool { return h != host }) || len(p.seen()) == before {
		t.Errorf("tokens for %v, the proxy was asked for %v", m.Given(), p.seen())
	}
}
