package sender

import (
	"fmt"
	"time"

	"defenderiot/pkg/devo"
)

// service is one of the sender services that people know, by the names that its lines carry.
type service struct{ group, title string }

var (
	standardService = service{"standard_senders", "Standard"}
	lookupService   = service{"lookup_senders", "Lookup"}
	internalService = service{"internal_senders", "Internal"}
)

// kind is what the names of an output's threads begin with, and its senders' names in small letters.
func (s OutputSettings) kind() (class, instance string) {
	switch {
	case s.Console != nil:
		return "ConsoleSender", "console_sender"
	case s.Endpoint.Kind == devo.TCP:
		return "SyslogSender", "syslog_sender"
	}
	return "DevoSender", "devo_sender"
}

// senderName is the thread of one connection: DevoSender(standard_senders,devo_sender_0).
func (s OutputSettings) senderName(of service, i int) string {
	class, instance := s.kind()
	return fmt.Sprintf("%s(%s,%s_%d)", class, of.group, instance, i)
}

// managerName is DevoSenderManager(standard_senders,manager,devo_1).
func (s OutputSettings) managerName(of service) string {
	class, _ := s.kind()
	return fmt.Sprintf("%sManager(%s,manager,%s)", class, of.group, s.Name)
}

// monitorName is DevoSenderManagerMonitor(standard_senders,devo_1).
func (s OutputSettings) monitorName(of service) string {
	class, _ := s.kind()
	return fmt.Sprintf("%sManagerMonitor(%s,%s)", class, of.group, s.Name)
}

// consumerName is OutputStandardConsumer(standard_senders_consumer_0).
func (s service) consumerName() string {
	return fmt.Sprintf("Output%sConsumer(%s_consumer_0)", s.title, s.group)
}

// statistics is one report of a service.
type statistics struct {
	waiting int64   // on the bus, not taken
	inHand  []int64 // of each connection: taken and not confirmed
	open    bool
	senders []string
	title   string
	since   time.Time // of the previous report
	total   sums
	part    sums // since then
}

const (
	sinceBlank = "2006-01-02 15:04:05.000000+00:00"
	sinceT     = "2006-01-02T15:04:05.000000+00:00"
)

// lines are those that people search for. With bytes they are in the later of the two known forms.
func (s statistics) lines(bytes bool) []string {
	out := []string{
		fmt.Sprintf("Number of available senders: %d, sender manager internal queue size: %d", len(s.senders), s.waiting),
		"enqueued_elapsed_times_in_seconds_stats: {}",
	}
	open := "False"
	if s.open {
		open = "True"
	}
	for i, name := range s.senders {
		out = append(out, fmt.Sprintf(`Sender: %s, status: {"internal_queue_size": %d, "is_connection_open": %s}`, name, s.inHand[i], open))
	}
	since := s.since.UTC()
	if bytes {
		return append(out, fmt.Sprintf(`%s - Total number of messages: %d messages/bytes sent since "%s": %d/%d, (elapsed %.3f seconds)`,
			s.title, s.total.sent, since.Format(sinceT), s.part.sent, s.part.bytes, s.part.writing.Seconds()))
	}
	return append(out, messagesLine(s.title, s.total.sent, s.part.sent, since, s.part.writing))
}

func messagesLine(title string, total, part int64, since time.Time, took time.Duration) string {
	return fmt.Sprintf(`%s - Total number of messages sent: %d, messages sent since "%s": %d (elapsed %.3f seconds)`,
		title, total, since.UTC().Format(sinceBlank), part, took.Seconds())
}

// consumedLine is what one period wrote.
func consumedLine(written int64, took time.Duration) string {
	rate := float64(written) / max(took.Seconds(), 1e-6)
	return fmt.Sprintf("Consumed messages: %d messages (%.5f seconds) => %d msg/sec", written, took.Seconds(), int64(rate))
}

// settledLine is what one period brought to its end: the consumer's messages, confirmed, and their bytes.
func settledLine(part sums, took time.Duration) string {
	return fmt.Sprintf("Consumed messages: %d, total_bytes: %d (%.6f seconds)", part.sent, part.bytes, took.Seconds())
}
