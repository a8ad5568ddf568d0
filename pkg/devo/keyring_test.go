package devo

import (
	"bytes"
	"os"
	"testing"
	"time"

	"defenderiot/pkg/fault"
)

// replace writes the content of from over to, as a copy would.
func replace(t testing.TB, to, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, text, 0o600))
}

// cutShort leaves the first part of a file, as when it is being written.
func cutShort(t testing.TB, path string, part float64) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, text[:int(float64(len(text))*part)], 0o600))
}

// TestKeyring replaces the files step by step: at each step the endpoint is asked which certificate it was
// shown, by its name.
func TestKeyring(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	type files struct {
		p             *peer
		newCert       string // of the pair that is to come
		newKey        string
		expired       [2]string
		chain, longer []byte
	}
	type step struct {
		name   string
		change func(t *testing.T, f *files)
		shown  string // the client certificate's name; "": Dial fails
		failed Reason // of Dial
		stale  Reason // of the keyring; "": none
	}
	cert := func(from func(*files) string) func(*testing.T, *files) {
		return func(t *testing.T, f *files) { replace(t, f.p.endpoint.CertFile, from(f)) }
	}
	key := func(from func(*files) string) func(*testing.T, *files) {
		return func(t *testing.T, f *files) { replace(t, f.p.endpoint.KeyFile, from(f)) }
	}
	newCert, newKey := func(f *files) string { return f.newCert }, func(f *files) string { return f.newKey }
	nothing := func(*testing.T, *files) {}
	for name, steps := range map[string][]step{
		"replaced at once": {
			{"before", nothing, "client", "", ""},
			{"after", func(t *testing.T, f *files) { cert(newCert)(t, f); key(newKey)(t, f) }, "renewed", "", ""},
		},
		"certificate first": {
			{"before", nothing, "client", "", ""},
			{"new certificate, old key", cert(newCert), "client", "", KeyMismatch},
			{"still", nothing, "client", "", KeyMismatch},
			{"both new", key(newKey), "renewed", "", ""},
		},
		"key first": {
			{"before", nothing, "client", "", ""},
			{"old certificate, new key", key(newKey), "client", "", KeyMismatch},
			{"both new", cert(newCert), "renewed", "", ""},
		},
		"half-written certificate": {
			{"before", nothing, "client", "", ""},
			{"half", func(t *testing.T, f *files) { cutShort(t, f.p.endpoint.CertFile, 0.5) }, "client", "", FileInvalid},
			{"empty", func(t *testing.T, f *files) { cutShort(t, f.p.endpoint.CertFile, 0) }, "client", "", FileInvalid},
			{"whole again", func(t *testing.T, f *files) { cert(newCert)(t, f); key(newKey)(t, f) }, "renewed", "", ""},
		},
		"half-written key": {
			{"before", nothing, "client", "", ""},
			{"half", func(t *testing.T, f *files) { cutShort(t, f.p.endpoint.KeyFile, 0.5) }, "client", "", FileInvalid},
			{"whole again", func(t *testing.T, f *files) { cert(newCert)(t, f); key(newKey)(t, f) }, "renewed", "", ""},
		},
		"missing for a moment": {
			{"before", nothing, "client", "", ""},
			{"certificate removed", func(t *testing.T, f *files) { must(t, os.Remove(f.p.endpoint.CertFile)) }, "client", "", FileMissing},
			{"key removed", func(t *testing.T, f *files) { must(t, os.Remove(f.p.endpoint.KeyFile)) }, "client", "", FileMissing},
			{"there again", func(t *testing.T, f *files) { cert(newCert)(t, f); key(newKey)(t, f) }, "renewed", "", ""},
		},
		"chain": {
			{"before", nothing, "client", "", ""},
			{"cut behind the first certificate", func(t *testing.T, f *files) {
				must(t, os.WriteFile(f.p.endpoint.ChainFile, append(bytes.Clone(f.chain), f.chain[:100]...), 0o600))
			}, "client", "", FileInvalid},
			{"removed", func(t *testing.T, f *files) { must(t, os.Remove(f.p.endpoint.ChainFile)) }, "client", "", FileMissing},
			{"replaced", func(t *testing.T, f *files) { must(t, os.WriteFile(f.p.endpoint.ChainFile, f.longer, 0o600)) }, "client", "", ""},
		},
		"expired": {
			{"before", nothing, "client", "", ""},
			{"a whole pair that is expired", func(t *testing.T, f *files) {
				replace(t, f.p.endpoint.CertFile, f.expired[0])
				replace(t, f.p.endpoint.KeyFile, f.expired[1])
			}, "", CertificateExpired, ""},
			{"and then half of it: nothing that is good is remembered", func(t *testing.T, f *files) { cutShort(t, f.p.endpoint.KeyFile, 0.5) }, "", FileInvalid, ""},
			{"renewed", func(t *testing.T, f *files) { cert(newCert)(t, f); key(newKey)(t, f) }, "renewed", "", ""},
		},
		"bad from the start": {
			{"nothing to fall back on", cert(newCert), "", KeyMismatch, ""},
			{"mended", key(newKey), "renewed", "", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			shown := make(chan string, 1)
			f := &files{p: newPeer(t, transports[0], nil, func(l *link) {
				shown <- l.tls.ConnectionState().PeerCertificates[0].Subject.CommonName
				untilEnd(l)
			})}
			f.newCert, f.newKey = f.p.ca.issue(t, "renewed", hour)
			f.expired[0], f.expired[1] = f.p.ca.issue(t, "expired", time.Now().Add(-time.Hour))
			var err error
			f.chain, err = os.ReadFile(f.p.endpoint.ChainFile)
			must(t, err)
			another, err := os.ReadFile(newAuthority(t).file)
			must(t, err)
			f.longer = append(bytes.Clone(another), f.chain...)
			keyring := new(Keyring)
			f.p.endpoint.Keyring = keyring
			for _, s := range steps {
				s.change(t, f)
				c, err := Dial(testContext(t), f.p.endpoint)
				if s.failed != "" {
					wantReason(t, err, s.failed)
				} else if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				} else {
					if got := <-shown; got != s.shown {
						t.Errorf("%s: the endpoint was shown %q, want %q", s.name, got, s.shown)
					}
					c.Close()
				}
				if s.stale != "" {
					wantReason(t, keyring.Stale(), s.stale)
					if fault.Hint(keyring.Stale()) == "" {
						t.Errorf("%s: no hint", s.name)
					}
				} else if err := keyring.Stale(); err != nil {
					t.Errorf("%s: stale: %v", s.name, err)
				}
			}
		})
	}
}

func TestKeyringDoesNotOutliveItsCertificate(t *testing.T) {
	ca := newAuthority(t)
	end := time.Now().Add(time.Hour)
	e := Endpoint{Kind: TLS, Address: serverName, Port: 443, ChainFile: ca.file, Keyring: new(Keyring)}
	e.CertFile, e.KeyFile = ca.issue(t, "client", end)
	_, err := e.tlsConfig(time.Now())
	must(t, err)
	must(t, os.Remove(e.KeyFile))
	if _, err := e.tlsConfig(end.Add(-time.Minute)); err != nil {
		t.Errorf("not kept: %v", err)
	}
	_, err = e.tlsConfig(end.Add(time.Minute))
	wantReason(t, err, FileMissing)
}

func TestValidities(t *testing.T) {
	ca := newAuthority(t)
	now := time.Now()
	end := now.Add(20 * 24 * time.Hour)
	e := Endpoint{Kind: TLS, Address: serverName, Port: 443, ChainFile: ca.file}
	e.CertFile, e.KeyFile = ca.issue(t, "client", end)
	// An intermediate that ends first, sent along.
	first, _ := ca.issue(t, "intermediate", now.Add(10*24*time.Hour))
	text, err := os.ReadFile(e.CertFile)
	must(t, err)
	more, err := os.ReadFile(first)
	must(t, err)
	must(t, os.WriteFile(e.CertFile, append(text, more...), 0o600))

	got, err := e.Validities(now)
	must(t, err)
	if len(got) != 2 || got[0].Kind != "cert" || got[0].Path != e.CertFile || got[0].Subject != "CN=intermediate" || got[0].End.Sub(now).Round(time.Hour) != 240*time.Hour ||
		got[1].Kind != "chain" || got[1].Path != ca.file || !got[1].End.Equal(ca.cert.NotAfter) {
		t.Errorf("%+v", got)
	}
	if got, err := (Endpoint{Kind: TCP}).Validities(now); err != nil || got != nil {
		t.Errorf("plain TCP: %v, %v", got, err)
	}
	must(t, os.Remove(e.KeyFile))
	_, err = e.Validities(now)
	wantReason(t, err, FileMissing)

	// Dates are not judged.
	e.CertFile, e.KeyFile = ca.issue(t, "client", now.Add(-time.Hour))
	if got, err = e.Validities(now); err != nil || !got[0].End.Before(now) {
		t.Errorf("expired: %+v, %v", got, err)
	}
}
