//go:build receivers && linux

package receivers

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/devo"
)

// How each receiver answers the half-close on which the proof of delivery rests; docs/delivery.md tells it.
func TestHalfClose(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k, "relay", 0)
			w.receiver.run()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			line := []byte("<14>2026-11-23 00:00:00.000 host " + table + `: {"text":"` + strings.Repeat("x", 1500) + "\"}\n")
			for _, lines := range []int{1, 2500} {
				conn, err := devo.Dial(ctx, w.endpoint(true))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // the proof is what counts
				begun := time.Now()
				if _, err := conn.Write(ctx, bytes.Repeat(line, lines)); err != nil {
					t.Fatal(err)
				}
				written := time.Since(begun)
				proof, err := conn.HalfClose(ctx)
				if !proof.Delivered() {
					t.Errorf("%d lines: the half-close gives %v: %v", lines, proof, err)
				}
				t.Logf("%s, %d lines: %v, %v after the write, which took %v", k.name, lines, proof, (time.Since(begun) - written).Round(10*time.Microsecond), written.Round(10*time.Microsecond))
			}
		})
	}
}

// The receivers do demand a client certificate, else the other tests would show less than they say.
func TestCertificateDemanded(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k, "relay", 0)
			w.receiver.run()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, err := devo.Dial(ctx, w.endpoint(false))
			if err != nil {
				t.Logf("refused in the handshake: %v", err)
				return
			}
			defer conn.Close() //nolint:errcheck // it is refused
			select {
			case <-conn.Gone():
				t.Logf("refused after the handshake: %v", conn.Err())
			case <-ctx.Done():
				t.Error("a connection without a client certificate is accepted")
			}
		})
	}
}

// endpoint leads to the receiver, with our client certificate or without one.
func (w *world) endpoint(certified bool) devo.Endpoint {
	certs := filepath.Join(w.dir, "certs")
	e := devo.Endpoint{Kind: devo.TLS, Address: "127.0.0.1", Port: w.receiver.port, ChainFile: filepath.Join(certs, "chain.crt")}
	if certified {
		e.CertFile, e.KeyFile = filepath.Join(certs, "simulated_domain.crt"), filepath.Join(certs, "simulated_domain.key")
	}
	return e
}
