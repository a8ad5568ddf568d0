package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	listen := []string{"--azure-listen", "127.0.0.1:0", "--devo-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0"}
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"version", []string{"--version"}, 0, "simulator dev", ""},
		{"unknown flag", []string{"--nothing"}, 255, "", "nothing"},
		{"help", []string{"--help"}, 0, "", "azure-listen"},
		{"runs", append(listen, "--dir", t.TempDir(), "--backfill", "10"), 0, "", "simulator is ready"},
		{"bad address", append(listen, "--devo-listen", "nowhere:x"), 1, "", "nowhere:x"},
		{"bad folder", append(listen, "--dir", "/dev/null/x"), 1, "", "/dev/null/x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(ended, tt.args, &stdout, &stderr); code != tt.code {
				t.Errorf("code %d, want %d: %s", code, tt.code, stderr.String())
			}
			if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
		})
	}
}
