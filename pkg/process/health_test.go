package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/telemetry"
)

// configuration writes a valid one with telemetry.listen and returns its path.
func configuration(t *testing.T, listen string) string {
	t.Helper()
	text := fmt.Sprintf(`globals: {debug: false, id: "1", name: test, persistence: {type: filesystem, config: {directory_name: %q}}}
outputs: {console_1: {type: console}}
inputs:
  defender_for_iot:
    id: "2"
    enabled: true
    credentials: {tenant_id: a, client_id: b, client_secret: c}
    environment: test
    services: {iot_security_alerts: {request_period_in_seconds: 60}}
telemetry: {listen: %q}
`, t.TempDir(), listen)
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Load(config.Options{Path: path}); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHealth(t *testing.T) {
	ctx := t.Context()
	tel, err := telemetry.New(ctx, telemetry.Settings{Service: "test", Listen: "127.0.0.1:0", LogOutput: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := tel.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	path := configuration(t, tel.Addr())
	away := fmt.Errorf("the endpoint is away")
	tel.Ready("sender", func() error { return away })
	if err := Health(ctx, config.Options{Path: path}, HealthAlive); err != nil {
		t.Errorf("alive with an absent peer: %v", err)
	}
	if err := Health(ctx, config.Options{Path: path}, HealthReady); err == nil || !strings.Contains(err.Error(), "sender: error: the endpoint is away") {
		t.Errorf("ready with an absent peer: %v", err)
	}
	away = nil
	if err := Health(ctx, config.Options{Path: path}, HealthReady); err != nil {
		t.Errorf("ready: %v", err)
	}
	tel.Alive("loop", func() error { return fmt.Errorf("stuck") })
	if err := Health(ctx, config.Options{Path: path}, HealthAlive); err == nil || !strings.Contains(err.Error(), "loop: error: stuck") {
		t.Errorf("alive with a stuck loop: %v", err)
	}
	if err := Health(ctx, config.Options{Path: path}, "well"); err == nil || !strings.Contains(err.Error(), "allowed: alive, ready") {
		t.Errorf("an unknown kind: %v", err)
	}
}

func TestHealthWithoutAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Health(t.Context(), config.Options{Path: configuration(t, nobody)}, HealthAlive); err == nil || Code(err) != ExitFailure {
		t.Errorf("nobody listens: %v", err)
	}
	err = Health(t.Context(), config.Options{Path: configuration(t, "127.0.0.1:0")}, HealthAlive)
	if err == nil || !strings.Contains(fault.Hint(err), "fixed port") {
		t.Errorf("any port: %v, hint %q", err, fault.Hint(err))
	}
	if err := Health(t.Context(), config.Options{Path: filepath.Join(t.TempDir(), "config.yaml")}, HealthAlive); Code(err) != ExitConfiguration {
		t.Errorf("no configuration: %v", err)
	}
}
