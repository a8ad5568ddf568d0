package process

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/config"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/status"
	"defenderiot/pkg/telemetry"
)

// The processes of the known collector, as prefixes of lines.
const (
	InputProcess  = "InputProcess"
	OutputProcess = "OutputProcess"
	mainProcess   = "MainProcess"
	mainThread    = "MainThread"
)

// counterparts says for each program which of the known collector's processes it stands for.
var counterparts = map[string][]string{"fetcher": {InputProcess}, "sender": {OutputProcess}, "dedup": {mainProcess}}

// owner stands in lines that people search by, in the place of the known collector's author.
const owner = "unknown"

const stampTime = "2006-01-02T15:04:05.000000Z"

// memoryPeriod is between two memory lines, as of the known collector.
const memoryPeriod = 5 * time.Minute

// Report lets the program tell about itself while it runs, which it does until stop is called: the lines of
// start and stop that people search for, the memory lines with the given processes' names, its status record and the
// copies of the log for Devo, which go to b, and when the certificates end that b uses. ctx is the one that a signal ends. Call stop before b is closed and when
// the services have ended; it returns within [internalevent.FlushTime] and leaves nothing running.
func (p *Process) Report(ctx context.Context, b *bus.Bus, processes ...string) (stop func()) {
	p.began(time.Now(), processes)
	// What is told outlives ctx: the stop is told as well.
	reporting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group, publisher sync.WaitGroup
	group.Go(func() { p.reportMemory(reporting, memoryPeriod, processes) })
	reporter := status.Reporter{Bus: b, Telemetry: p.Telemetry, Program: p.Program, Instance: p.Instance}
	group.Go(func() { reporter.Run(reporting) })
	group.Go(func() { p.watchBusCertificates(reporting, b) })
	publishing, end := context.WithCancel(context.WithoutCancel(ctx))
	if p.Telemetry.Copies != nil {
		own := internalevent.NewPublisher(p.Collector, p.Telemetry.Copies, b, p.Logger)
		publisher.Go(func() { own.Run(publishing) })
	}
	var at time.Time // when the stop began
	told := make(chan struct{})
	withdraw := context.AfterFunc(ctx, func() {
		defer close(told)
		at = time.Now()
		p.signalled(ctx)
	})
	return func() {
		cancel()
		group.Wait()
		if withdraw() {
			at = time.Now() // the services ended by themselves
		} else {
			<-told
		}
		p.ended(at)
		end()
		publisher.Wait()
	}
}

// began are the known lines of a start; the first is the one that the known collector shares with Devo, too.
func (p *Process) began(now time.Time, processes []string) {
	build := telemetry.BuildTime()
	if build == "" {
		build = "unknown"
	}
	telemetry.Shared(p.Logger).Info(fmt.Sprintf(`Build time: "%s", OS: "%s", collector(name:version): "%s:%s", owner: "%s", started at: "%s"`,
		build, runtime.GOOS+"/"+runtime.GOARCH, p.Collector.Name, p.Collector.Version, owner, now.UTC().Format(stampTime)))
	main := telemetry.WithThread(p.Logger, mainProcess, mainThread)
	main.Info(`Initialized all object from "MainProcess" process`)
	started := []struct{ process, line string }{{OutputProcess, "Process started"}, {InputProcess, "Process Started"}} // as they are known
	started = slices.DeleteFunc(started, func(s struct{ process, line string }) bool { return !slices.Contains(processes, s.process) })
	for _, s := range started {
		main.Info(fmt.Sprintf("%s - Starting thread (executing_period=%ds)", s.process, int(memoryPeriod.Seconds())))
	}
	main.Info(`Started all object from "MainProcess" process`)
	for _, s := range started {
		telemetry.WithThread(p.Logger, s.process, mainThread).Info(s.line)
	}
}

// Found logs how the configuration was looked for, in the lines that people know; o is what it was loaded by.
func (p *Process) Found(o config.Options) {
	logger := telemetry.WithThread(p.Logger, mainProcess, mainThread)
	name := cmp.Or(o.Path, os.Getenv("CONFIG_FILE"), filepath.Base(p.Config.File()))
	logger.Info(fmt.Sprintf(`Loading configuration using the following files: {"full_config": %q, "job_config_loc": %s, "collector_config_loc": %s}`,
		name, orNull(o.Job), orNull(o.Collector)))
	pair := len(config.Find(o)) == 2
	results := ""
	for _, f := range []struct{ key, named, folder, file string }{
		{"job_config_loc", o.Job, "/etc/devo/job", "job_config.json"}, {"collector_config_loc", o.Collector, "/etc/devo/collector", "collector_config.json"},
	} {
		path := f.named
		if path == "" {
			path = f.folder + "/" + f.file
			logger.Info(fmt.Sprintf("Using the default location for %q file: %q", f.key, path))
			if _, err := os.Stat(f.folder); err != nil {
				logger.Info(fmt.Sprintf("%q does not exists", f.folder))
			}
		}
		results += fmt.Sprintf(`, "%[1]s": %[2]q, "%[1]s_default": %[3]s, "%[1]s_validated": %[4]s`, f.key, path, python(f.named == ""), python(pair))
	}
	file := name
	if !pair {
		file = p.Config.File()
	}
	if absolute, err := filepath.Abs(file); err == nil {
		file = absolute
	}
	logger.Info(fmt.Sprintf(`Results of validation of config files parameters: {"config": %q, "config_validated": %s%s}`, file, python(!pair), results))
}

func orNull(path string) string {
	if path == "" {
		return "null"
	}
	return strconv.Quote(path)
}

// python is a boolean as the known lines write it.
func python(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// signalNumbers are of the signals that stop a program; the runtime's names differ from those in the line.
var signalNumbers = map[string]struct {
	name string
	code int
}{"interrupt": {"Interrupt", 2}, "terminated": {"Terminated", 15}}

// signalled says which signal ended ctx, if one did.
func (p *Process) signalled(ctx context.Context) {
	name, ok := strings.CutSuffix(context.Cause(ctx).Error(), " signal received")
	if !ok {
		return
	}
	if s, known := signalNumbers[name]; known {
		telemetry.Shared(p.Logger).Warn(fmt.Sprintf(`Received the "%s" system signal (code: %d), all the processes will be gracefully stopped`, s.name, s.code))
		thread := telemetry.WithThread(p.Logger, mainProcess, "CollectorThread")
		thread.Info("The graceful shutdown notification will be sent")
		thread.Info(`It has been received a notification that will cause a controlled stop of the whole collector: {"notification_id": "graceful_shutdown", "details": "Received the GRACEFUL_SHUTDOWN command"}`)
	}
}

// ended are the last lines; since is when the stop began.
func (p *Process) ended(since time.Time) {
	now := time.Now()
	logger := telemetry.WithThread(p.Logger, mainProcess, mainThread)
	logger.Info("Finalizing the whole collector")
	logger.Info(fmt.Sprintf(`{"collector_name": "%s", "collector_version": "%s", "collector_owner": "%s", "stopped_at": "%s"}`,
		p.Collector.Name, p.Collector.Version, owner, now.UTC().Format(stampTime)))
	logger.Info(fmt.Sprintf(`[EXIT] Process "MainProcess" completely terminated (elapsed time since the system signal was received: %.3fs)`, now.Sub(since).Seconds()))
}

// reportMemory writes the memory lines. The known collector forces a garbage collection and compares before
// and after; here the runtime collects by itself, so the line compares with the line before.
func (p *Process) reportMemory(ctx context.Context, every time.Duration, processes []string) {
	before, err := telemetry.ReadMemory()
	if err != nil {
		return // not Linux
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := telemetry.ReadMemory()
		if err != nil {
			continue
		}
		for _, process := range processes {
			memoryLogger(p.Logger, process).Info(telemetry.MemoryLine(before, now))
		}
		before = now
	}
}

func memoryLogger(logger *slog.Logger, process string) *slog.Logger {
	return telemetry.WithThread(telemetry.Uncopied(logger), process, mainThread)
}
