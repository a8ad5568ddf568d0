package collector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/collector"
	"defenderiot/services/dedup"
	"defenderiot/services/fetcher"
	"defenderiot/services/sender"
	"defenderiot/services/simulator"
)

// deployment is the services on nats-servers that run with the files of deploy/nats, as in the compose files: what
// the configuration lacks comes from the environment.
type deployment struct {
	*site
	servers  *bustest.Deployed
	secure   bool
	replicas int
	ctx      context.Context
	quiet    func() // ends the arrivals
	group    sync.WaitGroup
	log      bustest.Log
}

func deploy(t *testing.T, file string, servers int, rate float64) *deployment {
	t.Helper()
	d := &deployment{
		site:    newSite(t, simulator.Options{}),
		servers: bustest.Deploy(t, file, servers), secure: strings.Contains(file, "secure"), replicas: servers,
	}
	d.original = bytes.ReplaceAll(d.original, []byte("request_period_in_seconds: 10"), []byte("request_period_in_seconds: 1"))
	d.original = append(d.original, "\ntelemetry: {listen: \"127.0.0.1:0\"}\n"...)
	d.write("config.yaml", d.original)
	t.Chdir(d.dir)
	ctx, cancel := context.WithCancel(t.Context())
	feeding, quiet := context.WithCancel(ctx)
	d.ctx, d.quiet = ctx, quiet
	d.group.Go(func() { d.Generator.Feed(feeding, d.Graph, rate) })
	t.Cleanup(func() {
		cancel()
		d.group.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", tail(d.log.String(), 6000))
		}
	})
	return d
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// as sets the environment of a program.
func (d *deployment) as(user string) {
	d.t.Setenv("BUS_REPLICAS", fmt.Sprint(d.replicas))
	d.t.Setenv("BUS_URL", d.servers.URL)
	if !d.secure {
		return
	}
	d.t.Setenv("BUS_URL", strings.ReplaceAll(d.servers.URL, "nats://", "tls://"))
	d.t.Setenv("BUS_USER", user)
	d.t.Setenv("BUS_PASSWORD", "file://"+d.write(user+"-password", []byte(d.servers.Password(user).Reveal()+"\n")))
	d.t.Setenv("BUS_CA", d.servers.CA)
}

// command runs a command as a user and returns what it prints on stdout, else its error and its hint.
func (d *deployment) command(user string, args ...string) (string, error) {
	d.t.Helper()
	d.as(user)
	var out, stderr bytes.Buffer
	cmd := collector.Command(&out, &stderr)
	cmd.SetArgs(append(args, "--config", "config.yaml"))
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	if err := cmd.ExecuteContext(ctx); err != nil {
		process.Print(&stderr, "collector", err)
		return out.String(), fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return out.String(), nil
}

// must is a command that has to work.
func (d *deployment) must(user string, args ...string) string {
	d.t.Helper()
	out, err := d.command(user, args...)
	if err != nil {
		d.t.Fatalf("%s as %s: %v", strings.Join(args, " "), user, err)
	}
	return out
}

// program runs a service until the test ends or stop is called.
func (d *deployment) program(name, user string) (stop func()) {
	d.t.Helper()
	d.as(user)
	return d.start(name)
}

// start is program in the environment as it is.
func (d *deployment) start(name string) (stop func()) {
	d.t.Helper()
	c, warnings, err := config.Load(config.Options{Path: "config.yaml", Workdir: d.dir})
	if err != nil {
		d.t.Fatal(err)
	}
	p, err := process.OpenWith(d.t.Context(), name, c, warnings, &d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.ctx)
	ended := make(chan struct{})
	d.group.Go(func() {
		defer close(ended)
		defer p.Close()
		if err := serve(ctx, p, name); err != nil && ctx.Err() == nil {
			d.t.Errorf("%s: %v", name, err)
		}
	})
	return func() { cancel(); <-ended }
}

// serve is what the programs' main functions do.
func serve(ctx context.Context, p *process.Process, name string) error {
	if name == "collector" {
		return (&collector.Pipeline{Process: p, BusDir: process.BusDir(p.Config), Console: io.Discard}).Run(ctx)
	}
	b, err := p.Bound(ctx)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = b.Close(end)
	}()
	defer p.Report(ctx, b, name)()
	meter, tracer := p.Telemetry.Meter, p.Telemetry.Tracer
	switch name {
	case "fetcher":
		if err := fetcher.CheckRecords(ctx, b, p.Config); err != nil {
			return err
		}
		fetchers, release, err := fetcher.Configured(p.Config, fetcher.Runtime{Bus: b, Logger: p.Logger, Meter: meter, Tracer: tracer, Instance: p.Instance})
		if err != nil {
			return err
		}
		defer release()
		return fetchers[0].Run(ctx)
	case "dedup":
		d, err := dedup.New(dedup.Options{Bus: b, Logger: p.Logger, Meter: meter, Tracer: tracer})
		if err != nil {
			return err
		}
		keeper, err := dedup.NewKeeper(b, process.Topology(p.Config), p.Logger, meter)
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		group.Go(func() { _ = d.Run(ctx) })
		group.Go(func() { _ = keeper.Run(ctx) })
		group.Wait()
		return nil
	}
	s, err := sender.New(sender.Options{
		Bus: b, Outputs: sender.Configured(p.Config, io.Discard), Instance: p.Instance, Logger: p.Logger, Meter: meter, Tracer: tracer, Collector: p.Collector,
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// delivered waits until so many more alerts than now have arrived, and says how long that took.
func (d *deployment) delivered(more int64) time.Duration {
	d.t.Helper()
	began, from := time.Now(), d.Stats().Devo.Unique
	d.until(fmt.Sprintf("%d more alerts", more), func() bool { return d.Stats().Devo.Unique >= from+more })
	return time.Since(began)
}

func (d *deployment) until(what string, reached func() bool) {
	d.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !reached(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) || d.t.Failed() {
			d.t.Fatalf("gave up waiting for %s: %+v", what, d.Stats().Devo)
		}
	}
}

// settled ends the arrivals and waits until nothing is missing.
func (d *deployment) settled() {
	d.t.Helper()
	d.quiet()
	d.until("the last alert", func() bool { return len(d.Missing()) == 0 })
}

func (d *deployment) status(user string) collector.Status {
	d.t.Helper()
	s, err := d.tryStatus(user)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *deployment) tryStatus(user string) (s collector.Status, err error) {
	out, err := d.command(user, "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// Every program does all of its work with its own user, over TLS, and the server refuses nothing to any.
func TestProgramsWithTheirOwnUsers(t *testing.T) {
	d := deploy(t, "secure.conf", 1, 20)
	if _, err := d.command(bus.UserSender, "provision"); err == nil || !strings.Contains(err.Error(), "the user sender may not publish to") ||
		!strings.Contains(err.Error(), "hint: ") {
		t.Fatalf("provision by the sender: %v", err)
	}
	if got := len(d.servers.Violations()); got != 1 {
		t.Errorf("%d refusals, want the one: %v", got, d.servers.Violations())
	}
	refused := len(d.servers.Violations())
	d.must(bus.UserAdmin, "provision")
	stop := d.program("fetcher", bus.UserFetcher)
	d.program("dedup", bus.UserDedup)
	d.program("sender", bus.UserSender)
	d.delivered(100)
	for _, user := range []string{bus.UserFetcher, bus.UserDedup, bus.UserSender, bus.UserOperator, bus.UserAdmin} {
		if out := d.must(user, "check"); !strings.Contains(out, "ok      bus: connected to tls://") || !strings.Contains(out, "TLS 1.3) as "+user+", with the rights that this version needs; everything is provisioned") {
			t.Errorf("check as %s:\n%s", user, out)
		}
	}
	var s collector.Status
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last status: %+v, inputs %+v", s, s.Inputs["defender_for_iot"])
		}
	})
	d.until("the status records of three programs, with what only they know", func() bool {
		s = d.status(bus.UserOperator)
		certificates := map[string]bool{}
		for _, c := range s.Certificates {
			certificates[c.Of+" "+c.File] = true
		}
		in := s.Inputs["defender_for_iot"]
		return len(s.Processes) == 3 && in.Active != "" && in.LastPage != nil &&
			s.Outputs["devo_1"].Reachable != nil && *s.Outputs["devo_1"].Reachable && certificates["bus ca"] && certificates["bus server"] && certificates["output devo_1 cert"]
	})
	d.must(bus.UserOperator, "checkpoint", "show")
	d.must(bus.UserOperator, "checkpoint", "reset", "--resend", "--to", time.Now().Add(-2*time.Minute).UTC().Format(time.RFC3339))
	d.delivered(50)
	d.settled()
	// Once more, by a job with a rate, for which the senders take turns, and by one without.
	from, to := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339)
	for _, more := range [][]string{{"--rate", "5000"}, {"--again"}} {
		d.must(bus.UserOperator, append([]string{"replay", "--by", "stored", "--from", from, "--to", to}, more...)...)
	}
	if out := d.must(bus.UserOperator, "replay", "status"); strings.Count(out, "  done") != 2 {
		t.Errorf("replay status: %s", out)
	}
	d.must(bus.UserOperator, "dead", "list")
	letter := proto.DeadLetter{Stage: proto.StageSender, Output: "devo_1", Reason: "by hand", Stream: proto.StreamUnique, Sequence: 1}
	if err := d.servers.Connect(d.servers.Settings(bus.UserSender)).DeadLetter(d.ctx, letter); err != nil {
		t.Fatal(err)
	}
	if out := d.must(bus.UserOperator, "dead", "drop", "--all", "--yes"); !strings.Contains(out, "dropped 1") {
		t.Errorf("dead drop: %s", out)
	}
	stop()
	// What is wrong with a record is mended from its earlier revisions, which are read by a consumer.
	kv, err := d.servers.Connect(d.servers.Settings(bus.UserFetcher)).KeyValue(d.ctx, proto.BucketCheckpoints)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(d.ctx, proto.RecordKey(proto.Source{Input: "defender_for_iot", InputID: "23453", Service: fetcher.ServiceName}), []byte(cutRecord)); err != nil {
		t.Fatal(err)
	}
	if out := d.must(bus.UserOperator, "checkpoint", "reset", "--to", time.Now().Add(-10*time.Minute).UTC().Format(time.RFC3339)); !strings.Contains(out, "revision") {
		t.Errorf("reset of a damaged record: %s", out)
	}
	d.until("all to be confirmed", func() bool {
		s := d.status(bus.UserOperator)
		return s.Outputs["devo_1"].Pending == 0 && s.Events.Waiting == 0 && s.Outputs["devo_1"].Confirmed > 0
	})
	d.must(bus.UserAdmin, "provision", "--prune")
	if got := d.servers.Violations()[refused:]; len(got) > 0 {
		t.Errorf("refused: %s", strings.Join(got, "\n"))
	}
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "password of") || strings.Contains(line, "refused by the bus") {
			t.Errorf("logged: %s", line)
		}
	}
}

// `collector run` on a server is a user of its own.
func TestCollectorOnAServerWithUsers(t *testing.T) {
	d := deploy(t, "secure.conf", 1, 20)
	d.must(bus.UserAdmin, "provision")
	d.program("collector", bus.UserCollector)
	d.delivered(100)
	d.settled()
	if got := d.servers.Violations(); len(got) > 0 {
		t.Errorf("refused: %s", strings.Join(got, "\n"))
	}
}

// nats-config prints what deploy/nats holds, and makes passwords that a server takes.
func TestNatsConfig(t *testing.T) {
	s := newOperatorSite(t, "")
	out, code := s.collector(t.Context(), nil, "nats-config")
	if code != 0 || out != string(bus.UsersConf()) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if out, code = s.collector(t.Context(), nil, "nats-config", "--passwords", "secrets"); code != 0 {
		t.Fatal(out)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(s.dir, "secrets", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first, hashes := read("sender-password"), read("nats-passwords")
	info, err := os.Stat(filepath.Join(s.dir, "secrets", "sender-password"))
	if err != nil || info.Mode().Perm() != 0o600 || len(first) < 20 || strings.Contains(hashes, strings.TrimSpace(first)) {
		t.Errorf("%v, %v: %q", info, err, first)
	}
	if err := os.Remove(filepath.Join(s.dir, "secrets", "dedup-password")); err != nil {
		t.Fatal(err)
	}
	if out, code = s.collector(t.Context(), nil, "nats-config", "--passwords", "secrets"); code != 0 || strings.Contains(out, "sender-password") || !strings.Contains(out, "dedup-password") {
		t.Errorf("again: %d, %s", code, out)
	}
	if read("sender-password") != first {
		t.Error("a password that was there has changed")
	}
}
