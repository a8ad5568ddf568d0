package bustest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/crypto/bcrypt"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/secret"
)

// Deployed is one or more nats-servers with a file of deploy/nats as their configuration: the files as they are,
// but for addresses and folders.
type Deployed struct {
	// URL has all of the servers.
	URL string
	// CA is the authority of their certificates, a PEM file; another one that they do not have is OtherCA.
	CA, OtherCA string

	t         testing.TB
	dir, file string
	passwords map[string]secret.String
	ports     []int // of the clients
	routes    []int
	mu        sync.Mutex
	running   []*server.Server
	log       serverLog
}

// Deploy starts n servers with the file; they stop with the test.
func Deploy(t testing.TB, file string, n int) *Deployed {
	t.Helper()
	d := &Deployed{t: t, dir: t.TempDir(), file: file, running: make([]*server.Server, n), passwords: map[string]secret.String{}}
	if err := os.MkdirAll(filepath.Join(d.dir, "run", "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.CA, d.OtherCA = d.secret("nats-ca"), d.secret("other-ca")
	certificates(t, d.CA, d.OtherCA, d.secret("nats-certificate"), d.secret("nats-key"))
	for _, p := range bus.Permissions() {
		d.passwords[p.User] = secret.New("password of " + p.User)
	}
	// The least cost: under the race detector a check at the usual one takes seconds.
	hashes, err := bus.PasswordsConf(d.passwords, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.secret("nats-passwords"), hashes)
	var urls []string
	for range n {
		d.ports, d.routes = append(d.ports, freePort(t)), append(d.routes, freePort(t))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", d.ports[len(d.ports)-1]))
	}
	d.URL = strings.Join(urls, ",")
	t.Cleanup(func() {
		for i := range n {
			d.Stop(i)
		}
	})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { d.Start(i) })
	}
	group.Wait()
	return d
}

func (d *Deployed) secret(name string) string { return filepath.Join(d.dir, "run", "secrets", name) }

// Start starts server i, with what it had stored, and returns when it takes connections.
func (d *Deployed) Start(i int) {
	options, err := server.ProcessConfigFile(d.configure(i))
	if err != nil {
		d.t.Errorf("deploy/nats/%s: %v", d.file, err)
		return
	}
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	if err != nil {
		d.t.Errorf("deploy/nats/%s: %v", d.file, err)
		return
	}
	s.SetLoggerV2(&d.log, false, false, false)
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		d.t.Errorf("server %d is not ready: %s", i, d.log.all())
	}
	d.mu.Lock()
	d.running[i] = s
	d.mu.Unlock()
}

// Stop stops server i; what it has stored stays.
func (d *Deployed) Stop(i int) {
	d.mu.Lock()
	s := d.running[i]
	d.running[i] = nil
	d.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Server is server i, nil while it is stopped.
func (d *Deployed) Server(i int) *server.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running[i]
}

// StoreDir is the folder in which server i keeps everything; it may not be there yet.
func (d *Deployed) StoreDir(i int) string { return filepath.Join(d.dir, fmt.Sprintf("data-%d", i)) }

// Password is the user's.
func (d *Deployed) Password(user string) secret.String { return d.passwords[user] }

// Settings are for a connection as a user; "" for the files in which there are none.
func (d *Deployed) Settings(user string) bus.Settings {
	s := bus.Settings{URL: d.URL, Name: d.t.Name(), Logger: Logger()}
	if user != "" {
		s.User, s.Password, s.CA = user, d.passwords[user], d.CA
	}
	return s
}

// Connect opens a connection.
func (d *Deployed) Connect(s bus.Settings) *bus.Bus {
	d.t.Helper()
	b, err := bus.Connect(s)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { closeSoon(b) })
	return b
}

// Violations are the lines of the servers' logs about what was refused to somebody.
func (d *Deployed) Violations() []string {
	return slices.DeleteFunc(d.log.lines(), func(line string) bool { return !strings.Contains(line, "Violation") })
}

// configure writes all files for server i and returns the one that it is started with.
func (d *Deployed) configure(i int) string {
	folder := filepath.Join(d.dir, fmt.Sprintf("etc-%d", i), "nats")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		d.t.Error(err)
	}
	routes := []string{}
	for _, r := range d.routes {
		routes = append(routes, fmt.Sprintf("127.0.0.1:%d", r))
	}
	place := []string{
		"0.0.0.0:4222", fmt.Sprintf("127.0.0.1:%d", d.ports[i]),
		"0.0.0.0:8222", "127.0.0.1:-1",
		"0.0.0.0:6222", routes[i],
		"/data", d.StoreDir(i),
		`"../../run/secrets/`, `"../../run/secrets/`, // relative, as it is
		"/run/secrets/", filepath.Join(d.dir, "run", "secrets") + "/",
		"$SERVER_NAME", fmt.Sprintf("nats-%d", i+1),
	}
	if len(routes) == 3 {
		place = append(place, "nats:6222", routes[0], "nats-2:6222", routes[1], "nats-3:6222", routes[2])
	}
	replacer := strings.NewReplacer(place...)
	files, err := filepath.Glob(filepath.Join(deployFolder(), "*.conf"))
	if err != nil || len(files) == 0 {
		d.t.Errorf("no files in deploy/nats: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			d.t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(f)), []byte(replacer.Replace(string(text))), 0o600); err != nil {
			d.t.Error(err)
		}
	}
	return filepath.Join(folder, d.file)
}

func deployFolder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../deploy/nats")
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serverLog keeps warnings and errors.
type serverLog struct {
	mu   sync.Mutex
	text []string
}

func (l *serverLog) add(format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, fmt.Sprintf(format, v...))
}

func (l *serverLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

func (l *serverLog) all() string { return strings.Join(l.lines(), "\n") }

func (l *serverLog) Warnf(format string, v ...any)  { l.add(format, v) }
func (l *serverLog) Errorf(format string, v ...any) { l.add(format, v) }
func (l *serverLog) Fatalf(format string, v ...any) { l.add(format, v) }
func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
