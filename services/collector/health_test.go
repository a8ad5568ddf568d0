package collector

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the health check of the nats containers does with a server: its answers to /healthz in order, the last one for
// good, "" for none.
func TestHealthCheckOfTheServer(t *testing.T) {
	const well, readOnly, broken = "HTTP/1.0 200 OK\r\n\r\n{\"status\":\"ok\"}", "HTTP/1.0 503\r\n\r\nstream RAW: critical write error", "HTTP/1.0 503\r\n\r\nJetStream is not current"
	for name, tc := range map[string]struct {
		answers []string
		full    bool
		ends    bool
		want    string
	}{
		"well":                    {answers: []string{well}},
		"slow":                    {answers: []string{"", "", well}},
		"slow until the disk is":  {answers: []string{"", "", "", "", well}, want: "left alone"},
		"silent":                  {answers: []string{""}, ends: true, want: "by SIGQUIT"},
		"write error":             {answers: []string{readOnly}, ends: true, want: "by SIGTERM"},
		"write error, and full":   {answers: []string{readOnly}, full: true, want: "make room"},
		"write error, then well":  {answers: []string{readOnly, well}, want: "left alone"},
		"write error, then other": {answers: []string{readOnly, broken}, want: "left alone"},
		"not for it":              {answers: []string{broken}, want: "not current"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i, answer := range tc.answers {
				if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i+1)), []byte(answer), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			data := filepath.Join(dir, "data")
			if !tc.full {
				if err := os.Mkdir(data, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			nc := `#!/bin/sh
read -r request
case $request in *js-server-only*) printf 'HTTP/1.0 200 OK\r\n'; exit ;; esac
n=$(($(cat "$WORK/asked" 2>/dev/null || echo 0) + 1))
echo $n >"$WORK/asked"
[ -e "$WORK/$n" ] || n=$LAST
cat "$WORK/$n"
`
			if err := os.WriteFile(filepath.Join(dir, "nc"), []byte(nc), 0o700); err != nil { //nolint:gosec // it is to be run
				t.Fatal(err)
			}
			server := exec.Command("sleep", "600")
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Wait() }()
			check := exec.Command("sh", "../../deploy/nats/health.sh", data, strconv.Itoa(server.Process.Pid))
			check.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "WORK="+dir, "LAST="+strconv.Itoa(len(tc.answers)))
			out, err := check.CombinedOutput()
			var exit *exec.ExitError
			if healthy := tc.want == ""; (err == nil) != healthy || err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) || !strings.Contains(string(out), tc.want) {
				t.Errorf("%v: %s", err, out)
			}
			if tc.ends {
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Error("the server was not ended")
				}
				return
			}
			select {
			case err := <-ended:
				t.Errorf("the server was ended: %v", err)
			default:
				_ = server.Process.Kill()
				<-ended
			}
		})
	}
}
