package certificate

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestNotice(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		left time.Duration
		want string
	}{
		"a year":      {365 * 24 * time.Hour, ""},
		"thirty days": {Notice, ""},
		"just below":  {Notice - time.Second, "expires on 2026-12-23T11:59:59Z, in 29 days"},
		"two days":    {48 * time.Hour, "expires on 2026-11-25T12:00:00Z, in 2 days"},
		"hours":       {5 * time.Hour, "expires on 2026-11-23T17:00:00Z, within two days"},
		"over":        {-time.Second, "expired on 2026-11-23T11:59:59Z"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []Validity{
				{Kind: "cert", Path: "certs/domain.crt", Subject: "CN=domain", End: now.Add(tt.left)},
				{Kind: Server, Path: "192.0.2.1:4222", Subject: "CN=nats", End: now.Add(tt.left)},
			} {
				got := v.Notice(now)
				if (got == "") != (tt.want == "") || !strings.HasSuffix(got, tt.want) {
					t.Errorf("%q, want it to end in %q", got, tt.want)
				}
				if got != "" && !strings.HasPrefix(got, "the cert file certs/domain.crt holds a certificate (CN=domain) that ") &&
					!strings.HasPrefix(got, "the server 192.0.2.1:4222 shows a certificate (CN=nats) that ") {
					t.Errorf("%q", got)
				}
			}
		})
	}
}

// Each certificate is told of by itself, once a day, and its end recorded at each look.
func TestWatch(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	records := 0
	all := []Validity{{Kind: "ca", Path: "ca.crt", End: now.Add(time.Hour), Remedy: "mend it"}, {Kind: "cert", Path: "a.crt", End: now.Add(Notice * 2)}}
	w := Watch{
		Read: func(time.Time) ([]Validity, error) { return all, nil }, Record: func(context.Context, Validity) { records++ },
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Attrs: []any{"of", "bus"},
	}
	for _, at := range []time.Time{now, now.Add(time.Minute), now.Add(25 * time.Hour)} {
		w.Look(t.Context(), at)
	}
	if text := log.String(); strings.Count(text, "the ca file ca.crt") != 2 || strings.Count(text, "\n") != 2 || !strings.Contains(text, `of=bus hint="mend it"`) {
		t.Errorf("log:\n%s", text)
	}
	if records != 6 {
		t.Errorf("%d records of 3 looks at 2 certificates", records)
	}
}
