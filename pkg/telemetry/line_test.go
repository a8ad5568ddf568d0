package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
)

var moment = time.Date(2026, 11, 22, 19, 4, 6, 175_400_000, time.Local)

// at makes every record of a logger carry the same time.
type at struct {
	slog.Handler
	when time.Time
}

func (a at) Handle(ctx context.Context, r slog.Record) error {
	r.Time = a.when
	return a.Handler.Handle(ctx, r)
}
func (a at) WithAttrs(attrs []slog.Attr) slog.Handler { return at{a.Handler.WithAttrs(attrs), a.when} }
func (a at) WithGroup(name string) slog.Handler       { return at{a.Handler.WithGroup(name), a.when} }

type holder struct {
	Name   string
	hidden secret.String //nolint:unused // printed by nobody: that is the test
}

type broken struct{ n int }

func (b *broken) String() string { return fmt.Sprint(b.n) }

type kind string

// logCases are logged in both formats; the wanted lines are in testdata/<name>.<format>.
var logCases = []struct {
	name string
	log  func(*slog.Logger)
}{
	{"levels", func(l *slog.Logger) {
		l.Debug("Debug line")
		l.Info("Pull Started")
		l.Warn("The <port> is not a standard port (443): 8443")
		l.Error("File with name <f> does not exists in path <dir>.")
		l.Log(context.Background(), slog.LevelInfo+2, "Between two levels")
	}},
	{"thread", func(l *slog.Logger) {
		l.Info("Build time: \"UNKNOWN\"")
		out := WithThread(l, "OutputProcess", "MainThread")
		out.Warn("message")
		puller := WithThread(out, "InputProcess", "IotPuller(defender_for_iot,23453,iot_security_alerts,predefined)")
		puller.Info("The data is up to date!")
		puller.Info("Statistics for this pull cycle (@devo_pulling_id=1795374246436):Number of requests made: 1; Number of events received: 2.")
		WithThread(l.With("a", 1).WithGroup("g").With("b", 2), "P", "T").Info("In a group", "c", 3)
	}},
	{"fields", func(l *slog.Logger) {
		l.Info("Starting data collection every 30 seconds", Fields("period_seconds", 30))
		l.With(Fields("source", "a")).WithGroup("g").Warn("In a group", "shown", 1, Fields("n", 2, "wait", time.Second))
		l.Info("None", Fields())
	}},
	{"attributes", func(l *slog.Logger) {
		l.With("output", "devo_1").Info("Kinds", "s", "plain", "spaces", "two words", "empty", "", "quote", `a"b`, "equals", "a=b",
			"path", `C:\certs`, "utf8", "żółć", "n", -5, "u", uint64(7), "f", 1.5, "b", true, "d", 1500*time.Millisecond,
			"t", time.Date(2023, 10, 1, 9, 1, 0, 0, time.UTC), "nil", nil, "bytes", []byte("raw"), "kind", kind("steady"),
			"two words", "key", "list", []string{"a", "b"})
		l.Info("Groups", slog.Group("pull", "rows", 3, slog.Group("page", "n", 1)), slog.Group("empty"), slog.Group("", "inline", 1), slog.Attr{})
		l.Info("Errors", "error", fmt.Errorf("outer: %w", fault.Setup(101, "no token")))
		var none *broken
		l.Info("Nil stringer", "v", none)
	}},
	{"secrets", func(l *slog.Logger) {
		l.Info("Masked", "secret", secret.New("hunter2"), "holder", holder{"h", secret.New("hunter2")}, "pointer", &holder{"h", secret.New("hunter2")})
	}},
	{"breaks", func(l *slog.Logger) {
		WithThread(l, "Input\nProcess", "T\r1").Error("first\nsecond\r\nthird\ttab \x1b[31mred \u2028 \x85 bad \xff end",
			"error", errors.New("line one\nline two"), "key\nbreak", 1)
	}},
}

func TestGoldenLines(t *testing.T) {
	for _, format := range []string{FormatText, FormatJSON} {
		for _, tc := range logCases {
			t.Run(tc.name+"."+format, func(t *testing.T) {
				var out bytes.Buffer
				logger, err := NewLogger(&out, format, slog.LevelDebug)
				if err != nil {
					t.Fatal(err)
				}
				tc.log(slog.New(at{logger.Handler(), moment}))
				// The offset of the machine that runs the test is no part of the golden file.
				got := strings.ReplaceAll(out.String(), moment.Format(jsonTime), "2026-11-22T19:04:06.175Z")
				name := filepath.Join("testdata", tc.name+"."+format)
				if os.Getenv("UPDATE_GOLDEN") != "" {
					if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("got:\n%s\nwant:\n%s", got, want)
				}
				if strings.Contains(got, "hunter2") {
					t.Error("a secret shows")
				}
			})
		}
	}
}

// A handler that does not know the reserved attribute still shows process and thread.
func TestThreadOnForeignHandler(t *testing.T) {
	var out bytes.Buffer
	WithThread(slog.New(slog.NewTextHandler(&out, nil)), "P", "T").Info("x")
	if !strings.Contains(out.String(), "process=P thread=T") {
		t.Errorf("got %s", out.String())
	}
}

func TestURLPasswordIsMasked(t *testing.T) {
	var out bytes.Buffer
	logger, _ := NewLogger(&out, FormatText, slog.LevelInfo)
	logger.Info("x", "url", &url.URL{Scheme: "nats", Host: "n:4222", User: url.UserPassword("u", "hunter2")})
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a password shows: %s", out.String())
	}
}

func TestZeroTimeKeepsTheColumns(t *testing.T) {
	var out bytes.Buffer
	logger, _ := NewLogger(&out, FormatText, slog.LevelInfo)
	if err := logger.Handler().Handle(t.Context(), slog.NewRecord(time.Time{}, slog.LevelInfo, "x", 0)); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}    INFO MainProcess::MainThread -> x\n$`).Match(out.Bytes()) {
		t.Errorf("got %q", out.String())
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := NewLogger(&bytes.Buffer{}, "xml", slog.LevelInfo); err == nil || !strings.Contains(err.Error(), "text or json") {
		t.Errorf("got %v", err)
	}
}

func TestLevelAtRuntime(t *testing.T) {
	for _, format := range []string{FormatText, FormatJSON} {
		var out lines
		tel := start(t, Settings{LogFormat: format, LogOutput: &out})
		derived := WithThread(tel.Logger, "P", "T").With("a", 1)
		derived.Debug("hidden")
		tel.SetLevel(slog.LevelDebug)
		derived.Debug("shown")
		tel.SetLevel(slog.LevelError)
		derived.Warn("hidden")
		if got := out.all(); len(got) != 1 || !strings.Contains(got[0], "shown") {
			t.Errorf("%s: got %q", format, got)
		}
	}
}

func TestConcurrentWrites(t *testing.T) {
	const writers, each = 8, 200
	for _, format := range []string{FormatText, FormatJSON} {
		var out lines
		logger, _ := NewLogger(&out, format, slog.LevelInfo)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				l := WithThread(logger, "P", fmt.Sprint("T", w)).With("w", w)
				for n := range each {
					l.Info(fmt.Sprintf("writer %d record %d", w, n), "n", n)
				}
			})
		}
		wg.Wait()
		got := out.all()
		if len(got) != writers*each {
			t.Fatalf("%s: %d writes for %d records", format, len(got), writers*each)
		}
		seen := map[string]bool{}
		record := regexp.MustCompile(`writer (\d) record (\d+)`)
		for _, line := range got {
			m := record.FindStringSubmatch(line)
			if strings.Count(line, "\n") != 1 || m == nil || !strings.Contains(line, "T"+m[1]) {
				t.Fatalf("%s: mixed line %q", format, line)
			}
			seen[m[0]] = true
		}
		if len(seen) != writers*each {
			t.Errorf("%s: %d different records", format, len(seen))
		}
	}
}

func FuzzOneRecordIsOneLine(f *testing.F) {
	f.Add("Pull Started", "key", "value", "InputProcess", "MainThread")
	f.Add("a\nb\r\u2028\u2029\x85\v\f", "k\n", "v\n2026-11-22T19:04:06.175 ERROR", "P\n", "T\n")
	f.Add("\xff\x00\x1b[31m", "", "", "", "")
	f.Fuzz(func(t *testing.T, message, key, value, process, thread string) {
		for _, format := range []string{FormatText, FormatJSON} {
			var out lines
			logger, _ := NewLogger(&out, format, slog.LevelInfo)
			l := WithThread(logger.With(key, value).WithGroup(key), process, thread)
			l.Info(message, key, value, slog.Any(value, errors.New(value)), slog.Any("s", struct{ A string }{value}), slog.Any("b", []byte(value)))
			got := out.all()
			if len(got) != 1 {
				t.Fatalf("%s: %d writes", format, len(got))
			}
			body, end := got[0][:len(got[0])-1], got[0][len(got[0])-1]
			if end != '\n' {
				t.Fatalf("%s: no line end in %q", format, got[0])
			}
			breaks := "\n\r"
			if format == FormatText {
				breaks = "\n\r\v\f\x1b\x00\u0085\u2028\u2029"
			}
			if strings.ContainsAny(body, breaks) {
				t.Fatalf("%s: more than one line: %q", format, got[0])
			}
		}
	})
}
