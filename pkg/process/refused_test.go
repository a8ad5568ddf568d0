package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
)

// taker is an endpoint over plain TCP that reads one connection to its end.
func taker(t *testing.T) (port int, taken <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	all := make(chan string, 1)
	go func() {
		defer close(all)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // read to its end
		text, _ := io.ReadAll(conn)
		all <- string(text)
	}()
	return l.Addr().(*net.TCPAddr).Port, all
}

// refused is a configuration whose start times are wrong, with outputs on the ports.
func refused(t *testing.T, more string, ports ...int) (path string) {
	t.Helper()
	var outputs strings.Builder
	for i, port := range ports {
		fmt.Fprintf(&outputs, "  relay_%d: {type: syslog, config: {address: 127.0.0.1, port: %d}}\n", i, port)
	}
	text := `globals: {id: "1", name: test}
outputs:
  console_1: {type: console}
` + outputs.String() + `inputs:
  defender_for_iot: &input
    id: "2"
    credentials: {tenant_id: a, client_id: b, client_secret: c}
    services: {iot_security_alerts: {start_time_in_utc: yesterday}}
  defender_for_iot_2:
    <<: *input
    services: {iot_security_alerts: {start_time_in_utc: "2923-10-01T09:01:00Z"}}
` + more
	path = filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each wrong start time is a line of the log and of devo.collectors.out at every output that can be reached; one that
// cannot is a warning. Of the separate programs the fetcher tells, and no other.
func TestRefused(t *testing.T) {
	port, taken := taker(t)
	path := refused(t, "telemetry: {listen: 127.0.0.1:0}\n", port, closedPort(t))
	var quiet bytes.Buffer
	for _, service := range []string{"dedup", "sender"} {
		if _, err := Open(t.Context(), service, config.Options{Path: path}, &quiet); Code(err) != ExitConfiguration {
			t.Fatalf("%s: %v", service, err)
		}
	}
	if quiet.Len() > 0 {
		t.Errorf("another program told:\n%s", &quiet)
	}
	var log bytes.Buffer
	_, err := Open(t.Context(), "fetcher", config.Options{Path: path}, &log)
	if named, ok := errors.AsType[*fault.Error](err); !ok || named.Type != fault.TypeInitVariables || Code(err) != ExitConfiguration {
		t.Errorf("the error: %v", err)
	}
	const (
		first  = `InitVariablesError [CODE:0001] reason: Invalid start_time_in_utc: yesterday. Must be in parseable datetime format. hint=`
		second = `InitVariablesError [CODE:0002] reason: Invalid start_time_in_utc: 2923-10-01T09:01:00Z. Must be in the past. hint=`
	)
	for _, line := range []string{
		`  ERROR InputProcess::MainThread -> ` + regexp.QuoteMeta(first), `  ERROR InputProcess::MainThread -> ` + regexp.QuoteMeta(second),
		` WARNING InputProcess::MainThread -> the error above is not in devo\.collectors\.out reason="output relay_1: connect to 127\.0\.0\.1:\d+: `,
	} {
		if n := len(regexp.MustCompile(line).FindAllString(log.String(), -1)); n != 1 {
			t.Errorf("%d lines of %s:\n%s", n, line, &log)
		}
	}
	frames := strings.SplitAfter(<-taken, "\n")
	if len(frames) != 3 {
		t.Fatalf("%d frames: %q", len(frames)-1, frames)
	}
	for i, text := range []string{first, second} {
		if !strings.HasPrefix(frames[i], "<14>") || !strings.Contains(frames[i], ` devo.collectors.out.local.error: {"msg":"`+text) || !strings.Contains(frames[i], `"collector_name":"test"`) {
			t.Errorf("frame %d: %q", i, frames[i])
		}
	}
}

// Nothing is told without internal_events, and nothing of a file in which something else is wrong, too: nobody knows
// then whether the outputs are what was meant.
func TestRefusedTellsNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		more, log string
	}{
		"internal_events: false": {"telemetry: {internal_events: false}\n", "CODE:0001"},
		"another error":          {"telemetry: {internal_event: true}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // the test is over
			var log bytes.Buffer
			path := refused(t, tt.more, l.Addr().(*net.TCPAddr).Port)
			if _, err := Open(t.Context(), "fetcher", config.Options{Path: path}, &log); Code(err) != ExitConfiguration {
				t.Errorf("the error: %v", err)
			}
			if !strings.Contains(log.String(), tt.log) || tt.log == "" && log.Len() > 0 {
				t.Errorf("the log: %s", &log)
			}
			// What has connected is in the listener's queue.
			if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if conn, err := l.Accept(); err == nil {
				_ = conn.Close()
				t.Error("the output was connected to")
			}
		})
	}
}

// closedPort is one that nothing listens on.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody used it
	return l.Addr().(*net.TCPAddr).Port
}
