package resourcegraph

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

const benchRows = 1000

// canned is a transport that answers everything with one body, so that only the client is measured.
type canned struct{ body []byte }

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(c.body)), Request: r}, nil
}

type anyToken struct{}

func (anyToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// perRow runs one page a turn and reports the process's CPU time a row, which other work on the machine
// does not change much.
func perRow(b *testing.B, page func()) {
	b.ReportAllocs()
	begin := cpuTime(b)
	for b.Loop() {
		page()
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/1e3/float64(b.N)/benchRows, "cpu-µs/row")
}

func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkPage is a page of 1,000 rows of 1.5 KB through the whole client but the network.
func BenchmarkPage(b *testing.B) {
	body := []byte(alertPage(benchRows))
	c, err := newClient(Settings{QuotaShare: 1}, hooks{transport: canned{body}, credential: anyToken{}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	perRow(b, func() {
		c.brake.slots = nil // the quota would be what is measured
		p, err := c.Page(b.Context(), Query{Text: "q"})
		if err != nil || len(p.Rows) != benchRows {
			b.Fatal(err)
		}
	})
}

// BenchmarkPageTLS is the same over a real connection, with and without gzip; the server's part is in it.
func BenchmarkPageTLS(b *testing.B) {
	body := []byte(alertPage(benchRows))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(body)
	_ = z.Close()
	for name, send := range map[string]http.HandlerFunc{
		"plain": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) },
		"gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		},
	} {
		b.Run(name, func(b *testing.B) {
			a := startAzure(b, send)
			c := a.client()
			b.SetBytes(int64(len(body)))
			perRow(b, func() {
				c.brake.slots = nil
				if p, err := c.Page(b.Context(), Query{Text: "q"}); err != nil || len(p.Rows) != benchRows {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkEncodingJSON is what the SDK does with the same body, and what reading the rows by
// encoding/json would cost: why detach and decode exist.
func BenchmarkEncodingJSON(b *testing.B) {
	body := []byte(alertPage(benchRows))
	b.Run("any", func(b *testing.B) {
		perRow(b, func() {
			var v struct{ Data any }
			if err := json.Unmarshal(body, &v); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("raw", func(b *testing.B) {
		perRow(b, func() {
			var v struct{ Data []json.RawMessage }
			if err := json.Unmarshal(body, &v); err != nil {
				b.Fatal(err)
			}
			for _, r := range v.Data {
				var x struct {
					ID             string
					SubscriptionID string
					Properties     struct{ StartTimeUtc string }
				}
				if err := json.Unmarshal(r, &x); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
