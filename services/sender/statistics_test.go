package sender

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

var reportSince = time.Date(2023, 1, 10, 17, 9, 16, 116_750_900, time.FixedZone("CET", 3600))

func TestStatisticsLines(t *testing.T) {
	tls := OutputSettings{Name: "devo_1", Endpoint: devo.Endpoint{Address: "collector-us.devo.io", Port: 443}}
	s := statistics{
		inHand: []int64{0}, open: true, title: "Standard", since: reportSince,
		senders: []string{tls.senderName(standardService, 0)}, total: sums{sent: 57},
	}
	busy := statistics{
		waiting: 12, inHand: []int64{3, 4}, title: "Internal", since: reportSince,
		senders: []string{tls.senderName(internalService, 0), tls.senderName(internalService, 1)},
		total:   sums{sent: 44}, part: sums{sent: 6, bytes: 1317, writing: 38 * time.Millisecond},
	}
	for name, c := range map[string]struct {
		s     statistics
		bytes bool
		want  string
	}{
		"page": {s, false, `Number of available senders: 1, sender manager internal queue size: 0
enqueued_elapsed_times_in_seconds_stats: {}
Sender: DevoSender(standard_senders,devo_sender_0), status: {"internal_queue_size": 0, "is_connection_open": True}
Standard - Total number of messages sent: 57, messages sent since "2023-01-10 16:09:16.116750+00:00": 0 (elapsed 0.000 seconds)`},
		"later": {busy, true, `Number of available senders: 2, sender manager internal queue size: 12
enqueued_elapsed_times_in_seconds_stats: {}
Sender: DevoSender(internal_senders,devo_sender_0), status: {"internal_queue_size": 3, "is_connection_open": False}
Sender: DevoSender(internal_senders,devo_sender_1), status: {"internal_queue_size": 4, "is_connection_open": False}
Internal - Total number of messages: 44 messages/bytes sent since "2023-01-10T16:09:16.116750+00:00": 6/1317, (elapsed 0.038 seconds)`},
	} {
		if got := strings.Join(c.s.lines(c.bytes), "\n"); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
	const lookup = `Lookup - Total number of messages sent: 0, messages sent since "2023-01-10 16:09:16.116750+00:00": 0 (elapsed 0.000 seconds)`
	if got := messagesLine("Lookup", 0, 0, reportSince, 0); got != lookup {
		t.Errorf("got %s", got)
	}
	const consumed = `Consumed messages: 120 messages (60.01385 seconds) => 1 msg/sec`
	if got := consumedLine(120, 60013850*time.Microsecond); got != consumed {
		t.Errorf("got %s", got)
	}
}

func TestConsumerLine(t *testing.T) {
	if got := internalService.consumerName(); got != "OutputInternalConsumer(internal_senders_consumer_0)" {
		t.Errorf("got %s", got)
	}
	const want = `Consumed messages: 46, total_bytes: 31344 (60.015806 seconds)`
	if got := settledLine(sums{sent: 46, bytes: 31344}, 60_015_806*time.Microsecond); got != want {
		t.Errorf("got %s", got)
	}
}

func TestLinesOfTheStart(t *testing.T) {
	out := &bustest.Log{}
	logger, err := telemetry.NewLogger(out, telemetry.FormatText, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{service: standardService, instance: "vm-1", senders: 2, root: logger, settings: OutputSettings{Name: "devo_1", StatisticsPeriod: 300 * time.Second, Endpoint: devo.Endpoint{Address: "collector-eu.devo.io", Port: 443}}}
	m.begin()
	for i, want := range []string{
		" INFO OutputProcess::MainThread -> DevoSender(standard_senders,devo_sender_0) -> Starting thread",
		" INFO OutputProcess::MainThread -> DevoSender(standard_senders,devo_sender_1) -> Starting thread",
		" INFO OutputProcess::MainThread -> DevoSenderManagerMonitor(standard_senders,devo_1) -> Starting thread (every 300 seconds)",
		" INFO OutputProcess::MainThread -> DevoSenderManager(standard_senders,manager,devo_1) -> Starting thread",
	} {
		if got := strings.Split(out.String(), "\n")[i]; !strings.HasSuffix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNamesOfThreads(t *testing.T) {
	for want, s := range map[string]OutputSettings{
		"DevoSender(standard_senders,devo_sender_1) DevoSenderManager(lookup_senders,manager,a) DevoSenderManagerMonitor(internal_senders,a)":             {Name: "a"},
		"SyslogSender(standard_senders,syslog_sender_1) SyslogSenderManager(lookup_senders,manager,b) SyslogSenderManagerMonitor(internal_senders,b)":     {Name: "b", Endpoint: devo.Endpoint{Kind: devo.TCP}},
		"ConsoleSender(standard_senders,console_sender_1) ConsoleSenderManager(lookup_senders,manager,c) ConsoleSenderManagerMonitor(internal_senders,c)": {Name: "c", Console: &strings.Builder{}},
	} {
		if got := s.senderName(standardService, 1) + " " + s.managerName(lookupService) + " " + s.monitorName(internalService); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCreatedLine(t *testing.T) {
	m := &monitor{service: standardService, instance: "vm-1", settings: OutputSettings{
		Name: "devo_1", Endpoint: devo.Endpoint{Address: "collector-us.devo.io", Port: 443, ChainFile: "certs/chain.crt", CertFile: `C:\certs\"d".crt`, KeyFile: "certs/d.key"},
	}}
	const want = `Created a sender: {"name": "DevoSender(standard_senders,devo_sender_0)", "url": "collector-us.devo.io:443", "chain_path": "certs/chain.crt", "cert_path": "C:\\certs\\\"d\".crt", "key_path": "certs/d.key", "transport_layer_type": "SSL", "last_usage_timestamp": null, "socket_status": null}, hostname: "`
	if got := m.created(0); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, `", session_id: "vm-1"`) {
		t.Errorf("got  %s\nwant %s…", got, want)
	}
	m.settings.Endpoint = devo.Endpoint{Kind: devo.TCP, Address: "relay", Port: 13000}
	if got := m.created(0); !strings.Contains(got, `"chain_path": null, "cert_path": null, "key_path": null, "transport_layer_type": "TCP"`) {
		t.Errorf("got %s", got)
	}
}
