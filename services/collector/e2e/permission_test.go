//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/services/simulator"
)

// users are the bus's users on a nats-server, whose rights can be taken while it runs.
type users struct {
	*world
	conf   []byte // as `collector nats-config` prints it
	path   string
	server *program
}

// withUsers starts a nats-server with the users of `collector nats-config`, provisions it, and gives each program a
// configuration with a user of its own: PROGRAM.yaml.
func withUsers(t *testing.T, o simulator.Options) *users {
	t.Helper()
	w := newWorld(t, o)
	port := freePort(t)
	// The printed file includes the passwords from there.
	u := &users{world: w, path: filepath.Join(w.dir, "etc", "nats", "users.conf")}
	secrets := filepath.Join(w.dir, "run", "secrets")
	for _, dir := range []string{filepath.Dir(u.path), secrets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if p := output(t, w.dir, collectorProgram, "nats-config", "--passwords", secrets); p.Code() != 0 {
		t.Fatalf("nats-config --passwords: %s", p.Log.String())
	}
	printed := output(t, w.dir, collectorProgram, "nats-config")
	u.conf = []byte(printed.Stdout.String())
	u.write(u.conf)
	main := filepath.Join(filepath.Dir(u.path), "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nmax_payload: 32MB\njetstream {store_dir: %q, sync_interval: always}\ninclude \"users.conf\"\n", port, filepath.Join(w.dir, "nats"))
	if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	u.server = w.with(nil, natsProgram, "-c", main)
	u.server.says("Server is ready")

	common, err := os.ReadFile(filepath.Join(w.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for program, user := range map[string]string{
		fetcherProgram: bus.UserFetcher, dedupProgram: bus.UserDedup, senderProgram: bus.UserSender, "provision": bus.UserAdmin, "config": bus.UserOperator,
	} {
		own := fmt.Sprintf("bus:\n  url: nats://127.0.0.1:%d\n  user: %s\n  password: file://%s\nglobals:", port, user, filepath.Join(secrets, user+"-password"))
		if err := os.WriteFile(filepath.Join(w.dir, program+".yaml"), []byte(strings.Replace(string(common), "globals:", own, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p := output(t, w.dir, collectorProgram, "provision", "--config", "provision.yaml"); p.Code() != 0 {
		t.Fatalf("provision: exit %d, %s", p.Code(), p.Log.String())
	}
	return u
}

func (u *users) write(conf []byte) {
	u.t.Helper()
	if err := os.WriteFile(u.path, conf, 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// reload has a nats-server read its configuration again.
func (p *program) reload() {
	p.t.Helper()
	const done = "Reloaded server configuration"
	before := len(p.Log.Lines(done))
	p.Signal(syscall.SIGHUP)
	p.saysAgain(before+1, done)
}

// without is the configuration less some subjects of a user.
func (u *users) without(user string, subjects ...string) []byte {
	u.t.Helper()
	head, rest, found := strings.Cut(string(u.conf), fmt.Sprintf("user: %q", user))
	own, tail, ended := strings.Cut(rest, "user: ")
	if !found || !ended {
		u.t.Fatalf("no user %s, or it is the last, in\n%s", user, u.conf)
	}
	for _, s := range subjects {
		line := fmt.Sprintf("%q\n", s)
		if !strings.Contains(own, line) {
			u.t.Fatalf("user %s has no right to %s", user, s)
		}
		own = strings.Replace(own, line, "\n", 1)
	}
	return []byte(head + fmt.Sprintf("user: %q", user) + own + "user: " + tail)
}

// A right is taken from a program's user while alerts flow, and given back: five different ones. Each time the program
// says once which right it lacks, nothing is missing, and alerts flow again by themselves.
func TestPermissionRemoved(t *testing.T) {
	t.Parallel()
	u := withUsers(t, simulator.Options{Backfill: 500})
	services := map[string]*program{}
	for _, name := range []string{fetcherProgram, dedupProgram, senderProgram} {
		services[name] = u.with(nil, name, "--config", name+".yaml")
	}
	end := u.feed(30)
	u.flows()
	var slowest time.Duration
	for _, right := range []struct {
		program, user string
		subjects      []string
		said          string
	}{
		{fetcherProgram, bus.UserFetcher, []string{"alerts.raw.>"}, "alerts.raw."},
		{fetcherProgram, bus.UserFetcher, []string{"$JS.API.DIRECT.GET.KV_hashes", "$JS.API.DIRECT.GET.KV_hashes.>"}, "$JS.API.DIRECT.GET.KV_hashes"},
		{dedupProgram, bus.UserDedup, []string{"alerts.unique.>"}, "alerts.unique."},
		{senderProgram, bus.UserSender, []string{"$KV.ledgers.>"}, "$KV.ledgers."},
		{senderProgram, bus.UserSender, []string{"$JS.API.CONSUMER.MSG.NEXT.UNIQUE.*"}, "$JS.API.CONSUMER.MSG.NEXT.UNIQUE."},
	} {
		u.write(u.without(right.user, right.subjects...))
		u.server.reload()
		lines := services[right.program].Log.Lines
		services[right.program].says("ERROR", "refused by the bus: the user "+right.user, right.said)
		time.Sleep(time.Second)
		if right.program == senderProgram {
			u.breaks++ // what was taken may have been written
		}
		if n := len(lines("refused by the bus", right.said)); n > 2 {
			t.Errorf("%s said %d times that %v is refused", right.program, n, right.subjects)
		}
		u.write(u.conf)
		u.server.reload()
		took := u.flows()
		t.Logf("%s without %v: flowed again after %v", right.program, right.subjects, took)
		slowest = max(slowest, took)
	}
	end()
	u.settle(slowest)
	for _, p := range services {
		p.stop()
	}
}
