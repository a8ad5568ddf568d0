package sender

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"defenderiot/pkg/devo"
	"defenderiot/services/simulator"
)

// certificateRig is the certificates of an output with files that end in a year.
type certificateRig struct {
	*certificates
	authority *simulator.Authority
	dir       string
	end       time.Time
	reader    *sdkmetric.ManualReader
	log       bytes.Buffer
}

func newCertificateRig(t *testing.T) *certificateRig {
	t.Helper()
	authority, err := simulator.NewAuthority("test authority")
	if err != nil {
		t.Fatal(err)
	}
	r := &certificateRig{authority: authority, dir: t.TempDir(), reader: sdkmetric.NewManualReader()}
	if err := authority.WriteChain(r.dir, "chain.crt"); err != nil {
		t.Fatal(err)
	}
	r.end = r.renew(t, "domain")
	m, err := newMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	r.certificates = newCertificates(OutputSettings{Name: "devo_1", Endpoint: devo.Endpoint{
		Kind: devo.TLS, Address: "localhost", Port: 443, Keyring: new(devo.Keyring),
		ChainFile: filepath.Join(r.dir, "chain.crt"), CertFile: filepath.Join(r.dir, "domain.crt"), KeyFile: filepath.Join(r.dir, "domain.key"),
	}}, slog.New(slog.NewTextHandler(&r.log, nil)), m)
	return r
}

// renew writes a new pair and returns its end.
func (r *certificateRig) renew(t *testing.T, name string) time.Time {
	t.Helper()
	pair, err := r.authority.Client(simulator.Sound, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := simulator.WritePair(r.dir, "domain", pair); err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.NotAfter
}

// lines returns what was logged since it was asked last.
func (r *certificateRig) lines() []string {
	text := strings.TrimSuffix(r.log.String(), "\n")
	r.log.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func TestExpiryIsToldOnceADay(t *testing.T) {
	r := newCertificateRig(t)
	const day = 24 * time.Hour
	soon := r.end.Add(-20 * day)
	for _, s := range []struct {
		at    time.Time
		lines int // of the two files
	}{
		{soon.Add(-11 * day), 0}, {soon, 2}, {soon.Add(time.Minute), 0}, {soon.Add(day - time.Minute), 0}, {soon.Add(day), 2}, {soon.Add(day + time.Minute), 0}, {r.end.Add(day), 2},
	} {
		r.look(t.Context(), s.at)
		lines := r.lines()
		if len(lines) != s.lines {
			t.Fatalf("%v before the end: %d lines, want %d:\n%s", r.end.Sub(s.at), len(lines), s.lines, strings.Join(lines, "\n"))
		}
		for i, file := range []string{"domain.crt", "chain.crt"}[:s.lines] {
			for _, want := range []string{"level=WARN", filepath.Join(r.dir, file), "expire", "output=devo_1", "hint=", "no restart is needed"} {
				if !strings.Contains(lines[i], want) {
					t.Errorf("no %q in %s", want, lines[i])
				}
			}
		}
	}
}

func TestExpiryMetric(t *testing.T) {
	r := newCertificateRig(t)
	r.look(t.Context(), time.Now())
	var got metricdata.ResourceMetrics
	if err := r.reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	ends := map[string]float64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		if m.Name != "collector_sender_certificate_expiry_timestamp_seconds" {
			continue
		}
		for _, p := range m.Data.(metricdata.Gauge[float64]).DataPoints {
			if p.Attributes.Len() != 2 {
				t.Errorf("labels %v", p.Attributes)
			}
			output, _ := p.Attributes.Value(attribute.Key("output"))
			file, _ := p.Attributes.Value(attribute.Key("file"))
			ends[output.AsString()+"/"+file.AsString()] = p.Value
		}
	}
	if len(ends) != 2 || ends["devo_1/cert"] != float64(r.end.Unix()) || ends["devo_1/chain"] < float64(r.end.Add(-time.Hour).Unix()) {
		t.Errorf("%v, want the end %d", ends, r.end.Unix())
	}
	if lines := r.lines(); lines != nil {
		t.Errorf("logged: %v", lines)
	}
}

func TestHalfReplacedIsToldOnce(t *testing.T) {
	r := newCertificateRig(t)
	now := time.Now()
	r.look(t.Context(), now)
	key, err := os.ReadFile(r.endpoint.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	r.renew(t, "renewed")
	renewedKey, err := os.ReadFile(r.endpoint.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.endpoint.KeyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.look(t.Context(), now)
	}
	lines := r.lines()
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "does not belong to the certificate") || !strings.Contains(lines[0], "stays in use") || !strings.Contains(lines[0], "hint=") {
		t.Errorf("%q", lines)
	}
	if err := os.WriteFile(r.endpoint.KeyFile, renewedKey, 0o600); err != nil {
		t.Fatal(err)
	}
	r.look(t.Context(), now)
	if lines := r.lines(); len(lines) != 1 || !strings.Contains(lines[0], "works again") {
		t.Errorf("%q", lines)
	}
}
