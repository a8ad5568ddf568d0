package collector_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/proto"
)

// watched keeps what is written, from any goroutine, and says when text was.
type watched struct {
	mu    sync.Mutex
	all   strings.Builder
	text  string
	found func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	if strings.Contains(w.all.String(), w.text) {
		w.found()
	}
	return len(p), nil
}

// runUntil runs `collector run` until its log says text, and returns the log.
func (s *operatorSite) runUntil(text string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	log := &watched{text: text, found: cancel}
	_, code := s.collector(ctx, log, "run")
	log.mu.Lock()
	defer log.mu.Unlock()
	if !strings.Contains(log.all.String(), text) {
		s.t.Fatalf("exit code %d and no %q in %s", code, text, log.all.String())
	}
	return log.all.String()
}

func stateFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "state", name+".pickle"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRunImportsTheKnownStateOnce(t *testing.T) {
	state, emergency := stateFile(t, "state-4"), stateFile(t, "emergency")
	s := newOperatorSite(t, "")
	s.write(filepath.Join("state", stateName), state)
	s.write(filepath.Join("state", strings.Repeat("0", 32)), emergency)
	const imported, started = "the state of the known collector was imported", "collector runs"
	log := s.runUntil(started)
	if strings.Count(log, imported) != 1 || !strings.Contains(log, "has not delivered") || !strings.Contains(log, "messages=6") {
		t.Errorf("log of the first run:\n%s", log)
	}
	if log := s.runUntil(started); strings.Contains(log, imported) {
		t.Errorf("imported twice:\n%s", log)
	}
	kv, stop := s.serve()
	defer stop()
	entry, err := kv.Get(t.Context(), proto.RecordKey(operatorSource))
	if err != nil {
		t.Fatal(err)
	}
	c, err := proto.DecodeCheckpoint(entry.Value())
	if err != nil || c.Generation != 1 || c.Claiming == nil || len(c.Claiming.IDs) != 2 || !c.LastEventTime.Equal(c.Claiming.Before) {
		t.Errorf("%v, %s", err, entry.Value())
	}
}

func TestRunLeavesTheKnownStateWhereThereIsARecord(t *testing.T) {
	cut := stateFile(t, "cut")
	s := newOperatorSite(t, "")
	s.write(filepath.Join("state", stateName), cut) // not even read
	kv, stop := s.serve()
	if _, err := kv.Put(t.Context(), proto.RecordKey(operatorSource), []byte(ordinaryRecord)); err != nil {
		t.Fatal(err)
	}
	stop()
	s.runUntil("collector runs")
	kv, stop = s.serve()
	defer stop()
	if entry, err := kv.Get(t.Context(), proto.RecordKey(operatorSource)); err != nil || !strings.Contains(string(entry.Value()), `"generation":3`) {
		t.Errorf("%v, %v", entry, err)
	}
}

// What cannot be gone on from ends the program before anything starts, and is left as it is.
func TestRunRefusesAPositionItCannotRead(t *testing.T) {
	for name, tc := range map[string]struct{ record, state, says, hint string }{
		"cut record":   {cutRecord, "", "PrePullError [CODE:0001]", "collector checkpoint reset --to TIME"},
		"no JSON":      {"hello", "", "PrePullError [CODE:0001]", "collector checkpoint show"},
		"newer record": {newerRecord, "", "PrePullError [CODE:0001]", "run that version"},
		"cut state":    {"", "cut", "it ends too early", "move it away to begin at start_time_in_utc"},
		"newer state":  {"", "newer", "@persistence_version is 2", "restore the file"},
		"future state": {"", "future", "in the future", "restore the file"},
	} {
		t.Run(name, func(t *testing.T) {
			var state []byte
			if tc.state != "" {
				state = stateFile(t, tc.state)
			}
			s := newOperatorSite(t, "")
			if state != nil {
				s.write(filepath.Join("state", stateName), state)
			}
			kv, stop := s.serve()
			defer stop()
			if tc.record != "" {
				if _, err := kv.Put(t.Context(), proto.RecordKey(operatorSource), []byte(tc.record)); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			out, code := s.collector(t.Context(), nil, "run")
			if code != 1 || !strings.Contains(out, tc.says) || !strings.Contains(out, tc.hint) || strings.Contains(out, "collector runs") {
				t.Errorf("exit code %d:\n%s", code, out)
			}
			kv, stop = s.serve()
			defer stop()
			entry, err := kv.Get(t.Context(), proto.RecordKey(operatorSource))
			if tc.record == "" && err != jetstream.ErrKeyNotFound || tc.record != "" && string(entry.Value()) != tc.record {
				t.Errorf("the record is now %v, %v", entry, err)
			}
		})
	}
}

// The setting's own errors come before anything starts, too.
func TestRunRefusesAStartTime(t *testing.T) {
	for value, says := range map[string]string{
		"2999-01-01T00:00:00Z": "InitVariablesError [CODE:0002] reason: Invalid start_time_in_utc: 2999-01-01T00:00:00Z. Must be in the past.",
		"01/02/2023":           "InitVariablesError [CODE:0001] reason: Invalid start_time_in_utc: 01/02/2023. Must be in parseable datetime format.",
	} {
		t.Run(strings.ReplaceAll(value, "/", "-"), func(t *testing.T) {
			s := newOperatorSite(t, "")
			s.write("config.yaml", []byte(strings.Replace(operatorConfig, "2023-10-01T09:01:00Z", value, 1)))
			out, code := s.collector(t.Context(), nil, "run")
			if code != 255 || !strings.Contains(out, says) || strings.Contains(out, "collector runs") {
				t.Errorf("exit code %d:\n%s", code, out)
			}
			if _, err := os.Stat(filepath.Join(s.dir, "state")); err == nil {
				t.Error("something was started")
			}
		})
	}
}
