package sender

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// publishTime bounds the storing of a metric message.
const publishTime = 10 * time.Second

// monitor writes the statistics lines of one sender service of an output, and of the standard one the metric
// message. None of its lines is copied to Devo.
type monitor struct {
	settings OutputSettings
	service  service
	stream   string // what the service reads
	senders  int
	instance string
	bus      *bus.Bus
	root     *slog.Logger
	tally    *tally
	inHand   func() []int64
	open     func() bool

	// collector is who the metric message speaks of; nil: there is none.
	collector *internalevent.Collector
	trouble   *telemetry.Incident
	reported  sums // by the metric messages
	metricAt  time.Time

	last    sums
	since   time.Time
	waiting int64
}

// run reports every period until ctx ends.
func (m *monitor) run(ctx context.Context) {
	if m.settings.StatisticsPeriod <= 0 {
		return
	}
	m.root = telemetry.Uncopied(m.root)
	m.trouble = telemetry.NewIncident(m.thread(m.settings.monitorName(m.service)), "storing the metric message", telemetry.IncidentLevel(slog.LevelWarn))
	m.since = time.Now()
	m.metricAt = m.since
	m.begin()
	for pause(ctx, m.settings.StatisticsPeriod) {
		m.report(ctx, time.Now())
	}
}

func (m *monitor) thread(name string) *slog.Logger {
	return telemetry.WithThread(m.root, "OutputProcess", name)
}

// begin says what there is.
func (m *monitor) begin() {
	main := m.thread("MainThread")
	for _, line := range m.unusual() {
		main.Warn(line)
	}
	for i := range m.senders {
		main.Info(m.settings.senderName(m.service, i) + " -> Starting thread")
	}
	main.Info(fmt.Sprintf("%s -> Starting thread (every %d seconds)", m.settings.monitorName(m.service), int(m.settings.StatisticsPeriod.Seconds())))
	main.Info(m.settings.managerName(m.service) + " -> Starting thread")
	for i := range m.senders {
		if line := m.created(i); line != "" {
			m.thread(m.settings.managerName(m.service)).Info(line)
		}
	}
}

// devoAddresses are the endpoints that Devo names for its regions, on devoPort.
var devoAddresses = []string{"collector-eu.devo.io", "collector-us.devo.io", "collector-ca.devo.io", "collector-ap.devo.io", "collector-ap2.devo.io", "collector-us3.devo.io"}

const devoPort = 443

// unusual are the known warnings about the endpoint of an output over TLS, once for each output. The known lines name
// two regions; here no endpoint of Devo's is warned of.
func (m *monitor) unusual() (lines []string) {
	e := m.settings.Endpoint
	if m.service != standardService || m.settings.Console != nil || e.Kind != devo.TLS {
		return nil
	}
	const who = "DevoSender::_validate_kwargs_for_method__init__ -> "
	if !slices.Contains(devoAddresses, e.Address) {
		lines = append(lines, fmt.Sprintf("%sThe <address> is not a standard address (collector-eu.devo.io, collector-us.devo.io): %s", who, e.Address))
	}
	if e.Port != devoPort {
		lines = append(lines, fmt.Sprintf("%sThe <port> is not a standard port (%d): %d", who, devoPort, e.Port))
	}
	return lines
}

// created is the line about one connection's settings; "" for a console, which has none.
func (m *monitor) created(i int) string {
	e := m.settings.Endpoint
	if m.settings.Console != nil {
		return ""
	}
	carrier := "TCP"
	if e.Kind == devo.TLS {
		carrier = "SSL"
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf(`Created a sender: {"name": %s, "url": %s, "chain_path": %s, "cert_path": %s, "key_path": %s, "transport_layer_type": "%s", "last_usage_timestamp": null, "socket_status": null}, hostname: %s, session_id: %s`,
		quoted(m.settings.senderName(m.service, i)), quoted(e.String()), path(e.ChainFile), path(e.CertFile), path(e.KeyFile), carrier, quoted(host), quoted(m.instance))
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string always has a form
	return string(b)
}

func path(s string) string {
	if s == "" {
		return "null"
	}
	return quoted(s)
}

func (m *monitor) report(ctx context.Context, now time.Time) {
	total := m.tally.read()
	s := statistics{
		waiting: m.pending(ctx), inHand: m.inHand(), open: m.open(),
		title: m.service.title, since: m.since, total: total, part: total.less(m.last),
	}
	for i := range m.senders {
		s.senders = append(s.senders, m.settings.senderName(m.service, i))
	}
	logger := m.thread(m.settings.monitorName(m.service))
	for _, line := range s.lines(m.settings.StatisticsBytes) {
		logger.Info(line)
	}
	m.thread(m.settings.senderName(m.service, 0)).Info(consumedLine(s.part.written, now.Sub(m.since)))
	m.thread(m.service.consumerName()).Info(settledLine(s.part, now.Sub(m.since)))
	if m.service == standardService {
		if m.settings.Console != nil || m.settings.Endpoint.Kind == devo.TLS {
			// The outputs that have a lookup service in the known collector; here no lookup data exists.
			m.thread(m.settings.monitorName(lookupService)).Info(messagesLine(lookupService.title, 0, 0, m.since, 0))
		}
		m.publish(ctx, now, total)
	}
	m.last, m.since = total, now
}

// pending is how many messages of the stream the output has not taken; the last known number while the bus
// does not answer.
func (m *monitor) pending(ctx context.Context) int64 {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	consumer, err := m.bus.Consumer(ctx, m.stream, proto.OutputConsumer(m.settings.Name))
	if err == nil {
		m.waiting = int64(consumer.CachedInfo().NumPending)
	}
	return m.waiting
}

// publish stores the metric message of this output. If that fails the next one tells about both periods.
func (m *monitor) publish(ctx context.Context, now time.Time, total sums) {
	if m.collector == nil {
		return
	}
	part := total.less(m.reported)
	frame, err := m.collector.Metric(now, internalevent.Sent{Since: m.metricAt, Messages: part.sent, Bytes: part.bytes})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, publishTime)
		defer cancel()
		err = m.bus.TryBatch(ctx, proto.StreamInternal, []bus.Message{{Subject: proto.InternalMetricSubject(m.settings.Name), Data: frame}})
	}
	if err != nil {
		m.trouble.Report(err)
		return
	}
	m.trouble.Resolve()
	m.reported, m.metricAt = total, now
}
