package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// rsyslog is Debian's, unpacked into a folder by deploy/test/receivers-install.sh.
type rsyslog struct {
	root    string
	modules string
	version string
}

// rsyslogSettings is what the report says of rsyslogConfig.
const rsyslogSettings = "imfile (inotify, 1,024 lines a submission), ruleset queue LinkedList of 50,000 with one worker and batches of 1,024, omfwd with traditional framing, the client certificate, and chain and name of the endpoint verified"

// rsyslogConfig has no queue on disk: the file is what rsyslog reads again from the place that it remembers, so a
// second copy would only cost it time. Measured: a direct queue, a FixedArray, batches of 256 and of 4,096, and
// polling instead of inotify are not faster. One worker, because each has a connection of its own and the sender
// has one at a time.
var rsyslogConfig = template.Must(template.New("").Parse(`global(
	workDirectory="{{.Dir}}"
	maxMessageSize="4m"
	defaultNetstreamDriver="{{.Driver}}"
	defaultNetstreamDriverCAFile="{{.Certs}}/chain.crt"
	defaultNetstreamDriverCertFile="{{.Certs}}/{{.Client}}.crt"
	defaultNetstreamDriverKeyFile="{{.Certs}}/{{.Client}}.key"
)
module(load="imfile" mode="inotify")
template(name="line" type="string" string="%msg%\n")
ruleset(name="forward" queue.type="LinkedList" queue.size="50000" queue.dequeueBatchSize="1024" queue.workerThreads="1") {
	action(type="omfwd" target="{{.Host}}" port="{{.Port}}" protocol="tcp" template="line" TCP_Framing="traditional"
		streamDriver="{{.Driver}}" streamDriverMode="1" streamDriverAuthMode="x509/name" streamDriverPermittedPeers="localhost"
		action.resumeRetryCount="-1" action.resumeInterval="1")
}
input(type="imfile" file="{{.File}}" tag="alerts" ruleset="forward" maxSubmitAtOnce="1024")
`))

func findRsyslog(dir string) (*rsyslog, error) {
	dir, err := filepath.Abs(filepath.Join(dir, "rsyslog"))
	if err != nil {
		return nil, err
	}
	r := &rsyslog{root: filepath.Join(dir, "root")}
	version, err := os.ReadFile(filepath.Join(dir, "complete"))
	if err != nil {
		return nil, fmt.Errorf("rsyslog is not there: %w (deploy/test/receivers-install.sh unpacks it)", err)
	}
	r.version = strings.TrimSpace(string(version))
	modules, _ := filepath.Glob(filepath.Join(r.root, "usr/lib/*/rsyslog")) // the pattern is sound
	if len(modules) != 1 {
		return nil, fmt.Errorf("rsyslog's modules: found %v, want one folder; remove %s and run deploy/test/receivers-install.sh", modules, dir)
	}
	r.modules = modules[0]
	return r, nil
}

// command forwards the file to the site's endpoint, from its beginning.
func (r *rsyslog) command(ctx context.Context, s *site, driver, file string) (*exec.Cmd, error) {
	o := s.config.Outputs[output].Config
	host, port, err := net.SplitHostPort(s.sim.Devo.Addr())
	if err != nil {
		return nil, err
	}
	certs := filepath.Dir(s.config.CertPath(o.Cert))
	work := filepath.Join(s.dir, "rsyslog")
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, err
	}
	var text strings.Builder
	err = rsyslogConfig.Execute(&text, map[string]string{
		"Dir": work, "Driver": driver, "Certs": certs, "Client": strings.TrimSuffix(filepath.Base(o.Cert), ".crt"),
		"Host": host, "Port": port, "File": file,
	})
	if err != nil {
		return nil, err
	}
	config := filepath.Join(work, "rsyslog.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	libraries := []string{filepath.Join(r.root, "usr/lib/rsyslog")}
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(filepath.Join(r.root, pattern)) // the pattern is sound
		libraries = append(libraries, found...)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(r.root, "usr/sbin/rsyslogd"), "-n", "-f", config, "-i", filepath.Join(work, "pid"), "-M", r.modules)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
	return cmd, nil
}
