//go:build receivers && linux

package receivers

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"defenderiot/services/collector/e2e/internal/child"
	"defenderiot/services/simulator"
)

// kind is a receiver and how it is made to write what it got, unchanged.
type kind struct {
	name    string
	folder  string // in receiversDir
	program string
	shared  string // folders of its own libraries and modules
	modules string
	config  *template.Template
	args    func(r *receiver, modules string) []string
}

// The settings that matter are in docs/delivery.md. maxMessageSize and log-msg-size must be above the largest
// frame: both cut longer ones in pieces. The queue is direct, so that what rsyslog has read is written
// before it reads on, and a kill takes nothing that it had taken.
const rsyslogConfig = `global(
	workDirectory="{{.Dir}}"
	maxMessageSize="4m"
	parser.escapeControlCharactersOnReceive="off"
	defaultNetstreamDriver="{{.Driver}}"
	defaultNetstreamDriverCAFile="{{.Certs}}/chain.crt"
	defaultNetstreamDriverCertFile="{{.Certs}}/receiver.crt"
	defaultNetstreamDriverKeyFile="{{.Certs}}/receiver.key"
)
main_queue(queue.type="Direct")
module(load="imtcp" streamDriver.name="{{.Driver}}" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["simulated_domain"])
template(name="raw" type="string" string="%rawmsg%\n")
ruleset(name="alerts") { action(type="omfile" file="{{.File}}" template="raw") }
input(type="imtcp" address="127.0.0.1" port="{{.Port}}" ruleset="alerts" supportOctetCountedFraming="off")
`

const syslogNGConfig = `@version: 3.38
options { stats-freq(0); use-dns(no); keep-hostname(yes); };
source s {
	network(ip("127.0.0.1") port({{.Port}}) transport("tls") flags(no-parse) log-msg-size(4194304) max-connections(20) log-iw-size(2000)
		tls(ca-file("{{.Certs}}/chain.crt") cert-file("{{.Certs}}/receiver.crt") key-file("{{.Certs}}/receiver.key") peer-verify(required-trusted)));
};
destination d { file("{{.File}}" template("${MESSAGE}\n")); };
log { source(s); destination(d); flags(flow-control); };
`

var kinds = []kind{
	rsyslog("rsyslog with GnuTLS", "gtls"),
	rsyslog("rsyslog with OpenSSL", "ossl"),
	{
		name: "syslog-ng", folder: "syslog-ng", program: "usr/sbin/syslog-ng", shared: "usr/lib/syslog-ng", modules: "usr/lib/syslog-ng/3.38",
		config: template.Must(template.New("").Parse(syslogNGConfig)),
		args: func(r *receiver, modules string) []string {
			in := func(name string) string { return filepath.Join(r.dir, name) }
			return []string{"-F", "--no-caps", "--stderr", "-f", in("receiver.conf"), "--module-path", modules,
				"-R", in("persist"), "-c", in("control"), "-p", in("pid")}
		},
	},
}

func rsyslog(name, driver string) kind {
	return kind{
		name: name, folder: "rsyslog", program: "usr/sbin/rsyslogd", shared: "usr/lib/rsyslog", modules: "usr/lib/*/rsyslog",
		config: template.Must(template.New("").Parse(strings.ReplaceAll(rsyslogConfig, "{{.Driver}}", driver))),
		args: func(r *receiver, modules string) []string {
			return []string{"-n", "-f", filepath.Join(r.dir, "receiver.conf"), "-i", filepath.Join(r.dir, "pid"), "-M", modules}
		},
	}
}

// receiver is one receiver over all its restarts, on one port. Each run writes a file of its own: a kill
// in mid-write leaves a line without an end, to which the next run would append.
type receiver struct {
	*child.Program // of this run
	kind           kind
	t              *testing.T
	dir            string
	certs          string
	port           int
	runs           int
	read           int64 // of this run's file
	count          int   // of the lines in it
}

// newReceiver prepares a receiver with a certificate that the collector's chain verifies.
func newReceiver(t *testing.T, k kind, sim *simulator.Simulator, dir string) *receiver {
	t.Helper()
	r := &receiver{kind: k, t: t, dir: filepath.Join(dir, "receiver"), certs: filepath.Join(dir, "certs"), port: freePort(t)}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cert, err := sim.DevoAuthority().Server(simulator.Sound)
	if err != nil {
		t.Fatal(err)
	}
	if err := simulator.WritePair(r.certs, "receiver", cert); err != nil {
		t.Fatal(err)
	}
	return r
}

// freePort finds a port below those that the system gives to outgoing connections, so that nobody takes it
// while the receiver is away.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		if l, err := net.Listen("tcp", address(port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// run starts the receiver, again or for the first time, and waits until it listens.
func (r *receiver) run() {
	r.t.Helper()
	r.runs++
	r.read, r.count = 0, 0
	var text strings.Builder
	if err := r.kind.config.Execute(&text, map[string]any{"Dir": r.dir, "Certs": r.certs, "Port": r.port, "File": r.file(r.runs)}); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "receiver.conf"), []byte(text.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(r.dir, "pid")) // of a run that was killed
	root := filepath.Join(receiversDir, r.kind.folder, "root")
	libraries := []string{filepath.Join(root, r.kind.shared)}
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is sound
		libraries = append(libraries, found...)
	}
	modules, _ := filepath.Glob(filepath.Join(root, r.kind.modules))
	if len(modules) != 1 {
		r.t.Fatalf("%s: modules %v, want one folder; remove %s and run deploy/test/receivers-install.sh", r.kind.name, modules, root)
	}
	r.Program = child.Start(r.t, r.dir, filepath.Join(root, r.kind.program), []string{"LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}, r.kind.args(r, modules[0])...)
	eventually(r.t, r.kind.name+" to listen", func() bool {
		if !r.Running() {
			r.t.Fatalf("%s ended with %d", r.kind.name, r.Exit(patience))
		}
		conn, err := net.Dial("tcp", address(r.port))
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// file is what run number n writes to.
func (r *receiver) file(n int) string { return filepath.Join(r.dir, fmt.Sprintf("alerts-%d", n)) }

// lines is how many lines this run has written; asked again, it reads only what is new.
func (r *receiver) lines() int {
	f, err := os.Open(r.file(r.runs))
	if err != nil {
		return 0 // not written yet
	}
	defer f.Close() //nolint:errcheck // it was only read
	if _, err := f.Seek(r.read, io.SeekStart); err != nil {
		r.t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		r.t.Fatal(err)
	}
	r.read += int64(len(data))
	r.count += bytes.Count(data, []byte("\n"))
	return r.count
}
