package sender

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

// The known warnings about an endpoint, once for each output over TLS that is not one of Devo's own.
func TestWarningsOfAnUnusualEndpoint(t *testing.T) {
	const (
		address = " WARNING OutputProcess::MainThread -> DevoSender::_validate_kwargs_for_method__init__ -> The <address> is not a standard address (collector-eu.devo.io, collector-us.devo.io): "
		port    = " WARNING OutputProcess::MainThread -> DevoSender::_validate_kwargs_for_method__init__ -> The <port> is not a standard port (443): "
	)
	for name, tt := range map[string]struct {
		settings OutputSettings
		of       service
		want     []string
	}{
		"Devo in Europe":             {OutputSettings{Endpoint: devo.Endpoint{Address: "collector-eu.devo.io", Port: 443}}, standardService, nil},
		"Devo in Canada":             {OutputSettings{Endpoint: devo.Endpoint{Address: "collector-ca.devo.io", Port: 443}}, standardService, nil},
		"another port":               {OutputSettings{Endpoint: devo.Endpoint{Address: "collector-us.devo.io", Port: 8443}}, standardService, []string{port + "8443"}},
		"a relay":                    {OutputSettings{Endpoint: devo.Endpoint{Address: "relay.example.com", Port: 443}}, standardService, []string{address + "relay.example.com"}},
		"another one":                {OutputSettings{Endpoint: devo.Endpoint{Address: "10.0.0.1", Port: 13000}}, standardService, []string{address + "10.0.0.1", port + "13000"}},
		"plain TCP":                  {OutputSettings{Endpoint: devo.Endpoint{Kind: devo.TCP, Address: "10.0.0.1", Port: 13000}}, standardService, nil},
		"a console":                  {OutputSettings{Console: &bytes.Buffer{}}, standardService, nil},
		"the internal sender beside": {OutputSettings{Endpoint: devo.Endpoint{Address: "10.0.0.1", Port: 13000}}, internalService, nil},
	} {
		var out bytes.Buffer
		logger, err := telemetry.NewLogger(&out, telemetry.FormatText, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		(&monitor{service: tt.of, settings: tt.settings, root: logger}).begin()
		var got []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "WARNING") {
				got = append(got, strings.TrimSuffix(line[len("2006-01-02T15:04:05.000"):], "\n"))
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// The known line of a sender that is closed because it has nothing to send, after a minute and not before.
func TestLineOfAnUnusedSender(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	endpoint := devo.Endpoint{Kind: devo.TCP, Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
	var log bustest.Log
	logger, err := telemetry.NewLogger(&log, telemetry.FormatText, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	n := newInternal(Options{Logger: logger}, OutputSettings{Name: "devo_1", Endpoint: endpoint}, noop.Int64Counter{})
	now := time.Now()
	n.used = now
	n.rest(now.Add(time.Hour)) // there is no connection
	if n.conn, err = devo.Dial(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	defer n.hangUp()
	n.rest(now.Add(time.Minute))
	if n.conn == nil || log.String() != "" {
		t.Fatalf("closed after a minute: %s", log.String())
	}
	n.rest(now.Add(61 * time.Second))
	if n.conn != nil {
		t.Error("not closed after 61 s")
	}
	const want = "   INFO OutputProcess::SyslogSender(internal_senders,syslog_sender_0) -> This sender has not been used for 61 seconds, it will be closed and destroyed\n"
	if got := log.String(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q, want …%q", got, want)
	}
}

// The known line of a gzip member that is written, for each write and at level debug: under load that is many a second.
func TestLineOfAFlushedBuffer(t *testing.T) {
	packing, err := newCompression(compressionOf(config.Output{Type: config.OutputRelay, Config: config.OutputConfig{GzipThreshold: -1, CompressionLevel: 6, CompressionBufferInBytes: 51200}}))
	if err != nil {
		t.Fatal(err)
	}
	for level, least := range map[string]slog.Level{"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo} {
		var log bustest.Log
		logger, err := telemetry.NewLogger(&log, telemetry.FormatText, least)
		if err != nil {
			t.Fatal(err)
		}
		o := &output{compression: packing, logger: telemetry.WithThread(logger, "OutputProcess", "x")}
		packed := (&lane{output: o}).pack([]byte("<14>a b c: 1\n<14>a b c: 2\n"))
		want := regexp.MustCompile(`^\S+   DEBUG OutputProcess::x -> ` + fmt.Sprintf("Buffer flushed - Number of items/bytes sent: 2/%d", len(packed)) + "\n$")
		if got := log.String(); want.MatchString(got) != (level == "DEBUG") || level == "INFO" && got != "" {
			t.Errorf("at level %s: %q", level, got)
		}
	}
}
