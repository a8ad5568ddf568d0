package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/slogtest"
	"time"
)

func TestJSONHandlerKeepsSlogsRules(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return newJSONHandler(&out, slog.LevelInfo)
	}, func(t *testing.T) map[string]any {
		var m map[string]any
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func TestJSONFields(t *testing.T) {
	var out bytes.Buffer
	l := slog.New(newJSONHandler(&out, slog.LevelInfo))
	WithThread(WithThread(l.With("a", 1), "P1", "T1").WithGroup("g"), "P2", "T2").Warn("hello", "wait", time.Second)
	var got struct {
		Time, Level, Msg, Process, Thread string
		A                                 int
		G                                 struct{ Wait string }
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339Nano, got.Time); err != nil {
		t.Error(err)
	}
	if got.Level != "WARNING" || got.Msg != "hello" || got.Process != "P2" || got.Thread != "T2" || got.A != 1 || got.G.Wait != "1s" {
		t.Errorf("got %+v", got)
	}
	if n := bytes.Count(out.Bytes(), []byte(`"process"`)); n != 1 {
		t.Errorf("process is there %d times: %s", n, out.String())
	}
}
