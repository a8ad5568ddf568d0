package internalevent

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/telemetry"
)

func TestMain(m *testing.M) {
	bustest.Leaks(m)
}

var update = flag.Bool("update", false, "write the golden files anew")

var at = time.Date(2026, 11, 22, 20, 4, 6, 175123456, time.FixedZone("CET", 3600))

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".frame")
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestLine(t *testing.T) {
	plain := Collector{ID: "10001", Name: "collector", Version: "1.2.3", Host: "host-1"}
	image := plain
	image.Image = "registry.example/collector:1.2.3"
	puller := telemetry.Copy{
		Time: at, Level: "error", Process: "InputProcess", Thread: "IotPuller(defender_for_iot,23453,iot_security_alerts,predefined)",
		Text: `The pull failed <&> error="ApiError [CODE:0401]" über` + "\nnext\tline",
	}
	shared := telemetry.Copy{Time: at, Level: "info", Process: "MainProcess", Thread: "MainThread", Text: `Build time: "unknown"`, Shared: true}
	for name, c := range map[string]struct {
		collector Collector
		line      telemetry.Copy
	}{"puller": {plain, puller}, "shared": {plain, shared}, "image": {image, shared}} {
		t.Run(name, func(t *testing.T) {
			got, err := c.collector.Line(c.line)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "line-"+name, got)
		})
	}
}

func TestMetric(t *testing.T) {
	c := Collector{ID: "10001", Name: "collector", Version: "1.2.3", Host: "host-1"}
	got, err := c.Metric(at, Sent{Since: at.Add(-10 * time.Minute), Messages: 6, Bytes: 1317})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "metric", got)
}

func TestOrigin(t *testing.T) {
	for thread, want := range map[string][3]string{
		"MainThread":                      {},
		"InputThread(defender_for_iot,1)": {"defender_for_iot", "", ""},
		"ServiceThread(defender_for_iot,1,iot_security_alerts,predefined)": {"defender_for_iot", "iot_security_alerts", ""},
		"IotPuller(defender_for_iot,1,iot_security_alerts,predefined)":     {"defender_for_iot", "iot_security_alerts", "IotPuller"},
		"IotSetup(name,defender_for_iot#1,iot_security_alerts#predefined)": {"defender_for_iot", "iot_security_alerts", "IotSetup"},
		"Odd(a,b,c)":         {},
		"Odd(a":              {},
		"Odd":                {},
		"Odd(a,b,c,d,e)tail": {},
		"()":                 {},
	} {
		input, service, module := origin(thread)
		if got := [3]string{input, service, module}; got != want {
			t.Errorf("%s: got %q, want %q", thread, got, want)
		}
	}
}

// FuzzLine has any text in any thread be exactly one frame.
func FuzzLine(f *testing.F) {
	f.Add("text", "IotPuller(a,1,b,predefined)", "info")
	f.Add("a\nb\u2028\x00\x7f\xff", "(((,,,", "error")
	c := Collector{ID: "1", Name: "n", Version: "v", Host: "h"}
	f.Fuzz(func(t *testing.T, text, thread, level string) {
		frame, err := c.Line(telemetry.Copy{Time: at, Level: "info", Process: "InputProcess", Thread: thread, Text: text + level})
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(frame, []byte("\n")) != 1 || frame[len(frame)-1] != '\n' || !bytes.HasPrefix(frame, []byte("<14>2026-11-22 19:04:06.175 h devo.collectors.out.local.info: {")) || !utf8.Valid(frame) {
			t.Fatalf("%q", frame)
		}
	})
}
