//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"defenderiot/services/simulator"
)

// The account's storage on the nats-server is limited under load to less than it holds already, and the limit is lifted
// again. Every stage waits, each says so once, and nothing is missing.
func TestStorageLimit(t *testing.T) {
	t.Parallel()
	s := newSeparate(t, simulator.Options{Backfill: 500}, "fetcher-1", "dedup-1", "sender-1")
	end := s.feed(30)
	s.flows()
	s.limit("{max_file: 64KB, max_mem: 0}")
	s.services["fetcher-1"].says("WARNING", "waiting: stream RAW is full", "by a limit of the nats-server", "max_file_store")
	time.Sleep(outage)
	before := s.unique()
	time.Sleep(outage)
	if s.unique() > before+100 {
		t.Error("alerts flow in spite of the limit")
	}
	s.limit("enabled")
	recovered := s.flows()
	end()
	a := s.settle(recovered)
	if a.repeats > 0 {
		t.Errorf("%d alerts came again", a.repeats)
	}
	for _, name := range s.names {
		p := s.services[name]
		if lines := p.Log.Lines("by a limit of the nats-server"); len(lines) > 3 {
			t.Errorf("%s says %d times that it waits: %v", name, len(lines), lines)
		}
	}
	s.stop()
}

// limit gives the account another `jetstream` in the server's configuration, and has that read again.
func (s *separate) limit(jetstream string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "nats.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	head, account, found := bytes.Cut(text, []byte("COLLECTOR {\n"))
	_, rest, _ := bytes.Cut(account, []byte("\n"))
	if !found {
		s.t.Fatalf("no account in %s", text)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%sCOLLECTOR {\n    jetstream: %s\n%s", head, jetstream, rest), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.nats.reload()
}
