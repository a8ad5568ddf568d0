package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/secret"
)

func texts(copies []Copy) (out []string) {
	for _, c := range copies {
		out = append(out, c.Level+"|"+c.Process+"::"+c.Thread+"|"+fmt.Sprint(c.Shared)+"|"+c.Text)
	}
	return out
}

func TestCopies(t *testing.T) {
	for _, format := range []string{FormatText, FormatJSON} {
		t.Run(format, func(t *testing.T) {
			out := &lines{}
			tel := start(t, Settings{Copy: true, LogFormat: format, LogOutput: out, Level: slog.LevelDebug})
			log := tel.Logger
			puller := WithThread(log, "InputProcess", "IotPuller(a,1,b,predefined)")
			log.Debug("not this")
			log.Info("first", "n", 1)
			puller.With("input", "x y").WithGroup("g").Warn("second", "error", errors.New("refused"), "secret", secret.New("hunter2"))
			Uncopied(puller).Error("not this either")
			Uncopied(log).With("k", 1).WithGroup("g").Error("nor this")
			WithThread(Uncopied(log), "OutputProcess", "x").Info("nor that")
			Shared(log).Error("third")
			got := strings.Join(texts(tel.Copies.Take(100)), "\n")
			want := "info|MainProcess::MainThread|false|first n=1\n" +
				`warning|InputProcess::IotPuller(a,1,b,predefined)|false|second input="x y" g.error=refused g.secret=` + secret.New("x").String() + "\n" +
				"error|MainProcess::MainThread|true|third"
			if got != want {
				t.Errorf("copies:\n%s\nwant:\n%s", got, want)
			}
			// What is not copied is in the log all the same (two lines are of OpenTelemetry), and the marks leave no
			// trace in it.
			all := strings.Join(out.all(), "")
			if n := len(out.all()); n != 9 || strings.Contains(all, "mark") || strings.Contains(all, `"":`) || strings.Contains(all, " =") {
				t.Errorf("%d lines:\n%s", n, all)
			}
		})
	}
}

func TestLogLevelHoldsForCopies(t *testing.T) {
	tel := start(t, Settings{Copy: true, Level: slog.LevelWarn})
	tel.Logger.Info("no")
	tel.Logger.Warn("yes")
	if got := texts(tel.Copies.Take(9)); len(got) != 1 || !strings.HasSuffix(got[0], "|yes") {
		t.Errorf("%q", got)
	}
	if start(t, Settings{}).Copies != nil {
		t.Error("copies without being asked for")
	}
}

// TestCopiesAreBounded logs far more than fits while nobody takes anything.
func TestCopiesAreBounded(t *testing.T) {
	tel := start(t, Settings{Copy: true, LogOutput: discard{}, Listen: "127.0.0.1:0"})
	const n = 2 * maxCopies
	for i := range n {
		tel.Logger.Info(fmt.Sprint("line ", i), "long", strings.Repeat("é", maxCopyText))
	}
	if got := tel.Copies.Dropped(); got != n-maxCopies {
		t.Errorf("%d dropped, want %d", got, n-maxCopies)
	}
	kept := tel.Copies.Take(n)
	if len(kept) != maxCopies {
		t.Fatalf("%d kept", len(kept))
	}
	if want := fmt.Sprint("line ", n-maxCopies, " "); !strings.HasPrefix(kept[0].Text, want) {
		t.Errorf("the oldest kept is %.20q, want %q", kept[0].Text, want)
	}
	for _, c := range kept {
		if len(c.Text) > maxCopyText || !utf8.ValidString(c.Text) || !strings.HasSuffix(c.Text, "…") {
			t.Fatalf("a text of %d bytes, valid %v", len(c.Text), utf8.ValidString(c.Text))
		}
	}
	family := scrape(t, tel)["collector_internal_dropped_total"]
	if m := family.GetMetric(); len(m) != 1 || m[0].GetCounter().GetValue() != n-maxCopies {
		t.Errorf("/metrics says %v, want %d", family, n-maxCopies)
	}
}

func TestReadyAsLongAsLinesWait(t *testing.T) {
	tel := start(t, Settings{Copy: true})
	for range 3 {
		tel.Logger.Info("line")
	}
	for left := 3; left > 0; left -= 2 {
		select {
		case <-tel.Copies.Ready():
		default:
			t.Fatalf("not ready with %d lines", left)
		}
		tel.Copies.Take(2)
	}
	select {
	case <-tel.Copies.Ready():
		if len(tel.Copies.Take(1)) > 0 {
			t.Error("a line too many")
		}
	default:
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// TestCopyHasTheRecordsTime also of a record without one.
func TestCopyHasTheRecordsTime(t *testing.T) {
	copies := newCopies()
	h := newCopyHandler(slog.DiscardHandler, copies)
	at := time.Date(2026, 11, 22, 19, 4, 6, 0, time.UTC)
	_ = h.Handle(context.Background(), slog.NewRecord(at, slog.LevelInfo, "a", 0))
	_ = h.Handle(context.Background(), slog.NewRecord(time.Time{}, slog.LevelInfo, "b\xff", 0))
	got := copies.Take(2)
	if !got[0].Time.Equal(at) || got[1].Time.IsZero() || got[1].Text != "b\uFFFD" {
		t.Errorf("%+v", got)
	}
}
