package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"defenderiot/pkg/secret"
)

func TestNeverPrints(t *testing.T) {
	const text = "hunter2"
	holder := struct{ S secret.String }{secret.New(text)}
	hidden := struct{ s secret.String }{secret.New(text)}
	var out strings.Builder
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb, holder)
		fmt.Fprintf(&out, verb, &holder)
		fmt.Fprintf(&out, verb, holder.S)
		fmt.Fprintf(&out, verb, hidden)
		fmt.Fprintf(&out, verb, &hidden)
	}
	b, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", holder.S, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", holder.S, "holder", holder)
	out.Write(log.Bytes())
	for _, leak := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("the secret leaked as %q in %s", leak, out.String())
		}
	}
	if holder.S.Reveal() != text {
		t.Error("Reveal does not give the text")
	}
	if (secret.String{}).String() != "" || !(secret.String{}).IsZero() {
		t.Error("the empty secret is told apart")
	}
}

func TestLatest(t *testing.T) {
	now, fail := "first", error(nil)
	s := secret.Changing("first", func() (string, error) { return now, fail })
	now = "second"
	latest, err := s.Latest()
	if err != nil || s.Reveal() != "first" || latest.Reveal() != "second" {
		t.Errorf("%v: %q, then %q", err, s.Reveal(), latest.Reveal())
	}
	now = "third"
	if latest, err = latest.Latest(); err != nil || latest.Reveal() != "third" {
		t.Errorf("%v: %q", err, latest.Reveal())
	}
	fail = errors.New("gone")
	if kept, err := latest.Latest(); err != fail || kept.Reveal() != "third" {
		t.Errorf("%v: %q", err, kept.Reveal())
	}
	for _, fixed := range []secret.String{{}, secret.New("x")} {
		if same, err := fixed.Latest(); err != nil || same.Reveal() != fixed.Reveal() {
			t.Errorf("%v: %q", err, same.Reveal())
		}
	}
	if printed := fmt.Sprintf("%v %+v %#v", s, struct{ s secret.String }{s}, &struct{ S secret.String }{s}); strings.Contains(printed, "first") {
		t.Errorf("the secret leaked in %s", printed)
	}
}
