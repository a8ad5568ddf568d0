package process

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/config"
)

const patience = 30 * time.Second

func TestAwaitConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	var said bustest.Log
	if err := AwaitConfiguration(config.Options{Path: path}, &said); err != nil || said.String() != "" {
		t.Errorf("without the variable: %v, said %q", err, said.String())
	}
	t.Setenv(waitVariable, "soon")
	if err := AwaitConfiguration(config.Options{Path: path}, &said); err == nil {
		t.Error("a wrong variable passed")
	}
	t.Setenv(waitVariable, patience.String())
	done := make(chan error)
	go func() { done <- AwaitConfiguration(config.Options{Path: path}, &said) }()
	for end := time.Now().Add(patience); !strings.Contains(said.String(), "there is no file "+path); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("said %q", said.String())
		}
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRestartOnChange(t *testing.T) {
	path := configuration(t, "127.0.0.1:0")
	valid, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var log bustest.Log
	logger := slog.New(slog.NewTextHandler(&log, nil))
	ctx, stop := restartOnChange(t.Context(), config.Options{Path: path}, time.Millisecond, logger)
	stop()
	if ctx.Err() == nil {
		t.Error("stop does not stop")
	}
	t.Setenv(watchVariable, watchExit)
	ctx, stop = restartOnChange(t.Context(), config.Options{Path: path}, time.Millisecond, logger)
	defer stop()
	write := func(text []byte) {
		t.Helper()
		// In one step, as a careful editor does it: a half-written file is one more wrong one.
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("wrong: true"))
	for end := time.Now().Add(patience); !strings.Contains(log.String(), "is wrong"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a wrong file was not told")
		}
	}
	if ctx.Err() != nil {
		t.Fatal("a wrong file ended the program")
	}
	write(append(valid, "# changed\n"...))
	select {
	case <-ctx.Done():
	case <-time.After(patience):
		t.Fatal("a changed file was not seen")
	}
	if err := unlessRestart(t.Context(), ctx.Err()); err != nil {
		t.Errorf("a restart is an error: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := unlessRestart(over, over.Err()); err == nil {
		t.Error("the program's own end was taken for a restart")
	}
}
