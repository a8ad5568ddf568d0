package process

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/config"
	"defenderiot/proto"
)

type signalCause string

func (s signalCause) Error() string { return string(s) }

// reported runs a program that tells about itself, ends it for a reason and returns its log and what it has
// stored for Devo.
func reported(t *testing.T, cause error) (log, frames string) {
	t.Helper()
	b := bustest.New(t, bustest.Topology("devo"))
	out := &bustest.Log{}
	p, err := Open(t.Context(), "test", config.Options{Path: configuration(t, "127.0.0.1:0")}, out)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Logger.Info("before the bus")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := p.Report(ctx, b, InputProcess, OutputProcess)
	cancel(cause)
	stop()
	s, err := b.JetStream().Stream(bustest.Context(t), proto.StreamInternal)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(bustest.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		frames += string(m.Data)
	}
	return out.String(), frames
}

const stamp = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`

func TestReportOfStartAndStop(t *testing.T) {
	last := `.*INFO MainProcess::MainThread -> Finalizing the whole collector\n` +
		`.*INFO MainProcess::MainThread -> {"collector_name": "test", "collector_version": "[^"]+", "collector_owner": "unknown", "stopped_at": "` + stamp + `"}\n` +
		`.*INFO MainProcess::MainThread -> \[EXIT\] Process "MainProcess" completely terminated \(elapsed time since the system signal was received: \d+\.\d{3}s\)\n`
	start := `.*INFO MainProcess::MainThread -> Build time: "[^"]+", OS: "` + runtime.GOOS + "/" + runtime.GOARCH + `", collector\(name:version\): "test:[^"]+", owner: "unknown", started at: "` + stamp + `"\n` +
		`.*INFO MainProcess::MainThread -> Initialized all object from "MainProcess" process\n` +
		`.*INFO MainProcess::MainThread -> OutputProcess - Starting thread \(executing_period=300s\)\n` +
		`.*INFO MainProcess::MainThread -> InputProcess - Starting thread \(executing_period=300s\)\n` +
		`.*INFO MainProcess::MainThread -> Started all object from "MainProcess" process\n` +
		`.*INFO OutputProcess::MainThread -> Process started\n.*INFO InputProcess::MainThread -> Process Started\n`
	graceful := `.*INFO MainProcess::CollectorThread -> The graceful shutdown notification will be sent\n` +
		`.*INFO MainProcess::CollectorThread -> It has been received a notification that will cause a controlled stop of the whole collector: {"notification_id": "graceful_shutdown", "details": "Received the GRACEFUL_SHUTDOWN command"}\n`
	for cause, line := range map[string]string{
		"interrupt signal received":  `.*WARNING MainProcess::MainThread -> Received the "Interrupt" system signal \(code: 2\), all the processes will be gracefully stopped\n` + graceful,
		"terminated signal received": `.*WARNING MainProcess::MainThread -> Received the "Terminated" system signal \(code: 15\), all the processes will be gracefully stopped\n` + graceful,
		"something else":             ``,
	} {
		t.Run(cause, func(t *testing.T) {
			log, frames := reported(t, signalCause(cause))
			if want := regexp.MustCompile(start + line + last + "$"); !want.MatchString(log) {
				t.Errorf("the log is\n%swant\n%s", log, want)
			}
			for text, n := range map[string]int{
				`devo.collectors.out.local.info: {"msg":"before the bus"`: 1, `devo.collectors.out.global.info: {"msg":"Build time: `: 1,
				`devo.collectors.out.global.warning: {"msg":"Received the `: strings.Count(line, "all the processes"), "Finalizing": 1,
			} {
				if got := strings.Count(frames, text); got != n {
					t.Errorf("%d of %s, want %d:\n%s", got, text, n, frames)
				}
			}
		})
	}
}

func TestFoundConfiguration(t *testing.T) {
	out := &bustest.Log{}
	path := configuration(t, "127.0.0.1:0")
	p, err := Open(t.Context(), "test", config.Options{Path: path}, out)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, want := range []string{
		` INFO MainProcess::MainThread -> Loading configuration using the following files: {"full_config": "` + path + `", "job_config_loc": null, "collector_config_loc": null}`,
		` INFO MainProcess::MainThread -> Using the default location for "job_config_loc" file: "/etc/devo/job/job_config.json"`,
		` INFO MainProcess::MainThread -> "/etc/devo/job" does not exists`,
		` INFO MainProcess::MainThread -> Using the default location for "collector_config_loc" file: "/etc/devo/collector/collector_config.json"`,
		` INFO MainProcess::MainThread -> "/etc/devo/collector" does not exists`,
		` INFO MainProcess::MainThread -> Results of validation of config files parameters: {"config": "` + path + `", "config_validated": True, ` +
			`"job_config_loc": "/etc/devo/job/job_config.json", "job_config_loc_default": True, "job_config_loc_validated": False, ` +
			`"collector_config_loc": "/etc/devo/collector/collector_config.json", "collector_config_loc_default": True, "collector_config_loc_validated": False}`,
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
}

func TestReportMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is Linux's")
	}
	out := &bustest.Log{}
	p, err := Open(t.Context(), "test", config.Options{Path: configuration(t, "127.0.0.1:0")}, out)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Telemetry.Copies.Take(1000)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.reportMemory(ctx, time.Millisecond, []string{InputProcess, OutputProcess})
	}()
	for _, process := range []string{InputProcess, OutputProcess} {
		line := regexp.MustCompile(fmt.Sprintf(`   INFO %s::MainThread -> \[GC\] global: \d+\.\d%% -> \d+\.\d%%, process: RSS\(\d+\.\d\d[KMG]iB -> \d+\.\d\d[KMG]iB\), VMS\(`, process))
		for end := time.Now().Add(patience); !line.MatchString(out.String()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %s in\n%s", line, out.String())
			}
		}
	}
	cancel(errors.New("done"))
	<-done
	if copied := p.Telemetry.Copies.Take(10); len(copied) > 0 {
		t.Errorf("copied: %+v", copied)
	}
}

// TestWithoutInternalEvents keeps no copies and stores nothing.
func TestWithoutInternalEvents(t *testing.T) {
	c, warnings, err := config.Load(config.Options{Path: configuration(t, "127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	c.Telemetry.InternalEvents = false
	p, err := OpenWith(t.Context(), "test", c, warnings, &bustest.Log{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b := bustest.New(t, bustest.Topology("devo"))
	p.Report(t.Context(), b)()
	s, err := b.JetStream().Stream(bustest.Context(t), proto.StreamInternal)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 0 || p.Telemetry.Copies != nil {
		t.Errorf("%d lines stored", n)
	}
}
