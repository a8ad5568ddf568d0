package telemetry

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is a log output that keeps each Write apart.
type lines struct {
	mu     sync.Mutex
	writes [][]byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, bytes.Clone(p))
	return len(p), nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]string, len(l.writes))
	for i, w := range l.writes {
		all[i] = string(w)
	}
	return all
}

// quiet keeps the developer's own environment out of a test.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
	} {
		t.Setenv(name, "")
	}
}

// start returns a running Telemetry that is closed at the end of the test.
func start(t *testing.T, s Settings) *Telemetry {
	t.Helper()
	quiet(t)
	return startHere(t, s)
}

func startHere(t *testing.T, s Settings) *Telemetry {
	t.Helper()
	if s.LogOutput == nil {
		s.LogOutput = t.Output()
	}
	tel, err := New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	if err := tel.Start(); err != nil {
		t.Fatal(err)
	}
	return tel
}

// eventually waits for a condition; the deadline only ends a broken test.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
