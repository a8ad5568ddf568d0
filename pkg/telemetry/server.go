package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// listenAddress completes the address as [Settings] documents it.
func listenAddress(listen string) (string, error) {
	if listen == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("telemetry: invalid listen address %q: want host:port with a port of 0 to 65535, for example 127.0.0.1:8080: %w", listen, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Start listens and serves /healthz, /readyz, /metrics and /debug/pprof/. Without a listen address it does nothing. An
// error names the address and what to do about it; the program cannot be watched then and should not run.
// A second call, or one after Close, is an error.
func (t *Telemetry) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return errors.New("telemetry: start after close")
	case t.server != nil:
		return errors.New("telemetry: started twice")
	case t.listen == "":
		return nil
	}
	// The deadline is for the look-up of a host name; listening itself does not wait.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", t.listen)
	if err != nil {
		return fmt.Errorf("telemetry: cannot serve /healthz, /readyz and /metrics on %s: %w; set telemetry.listen to a free address of this machine (port 0 takes any free port) or stop the program that uses this one", t.listen, err)
	}
	t.listener = listener
	t.server = &http.Server{
		Handler:           t.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(t.Logger.Handler(), slog.LevelDebug),
	}
	t.serving = make(chan struct{})
	go func() {
		defer close(t.serving)
		if err := t.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Logger.Error("The pages /healthz, /readyz and /metrics are no longer served; restart the program",
				"address", listener.Addr().String(), "error", err)
		}
	}()
	return nil
}

// Addr is the address that is served, with the port that was taken; "" before Start and without a listener.
func (t *Telemetry) Addr() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener == nil {
		return ""
	}
	return t.listener.Addr().String()
}

func (t *Telemetry) stopServing(ctx context.Context) {
	t.mu.Lock()
	t.closed = true
	server, serving := t.server, t.serving
	t.mu.Unlock()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		// Nobody needs the answer of a request that is still open now. Close fails only on a listener
		// that Shutdown has closed already.
		_ = server.Close()
	}
	<-serving
}

func (t *Telemetry) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", t.alive.serve)
	mux.HandleFunc("GET /readyz", t.ready.serve)
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(t.Logger.Handler(), slog.LevelWarn),
		// One broken collector must not hide every other figure.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	}))
	// Profiles and stacks, for who has to find out what a running program does. They hold no event and no
	// secret, but they are one more reason to keep the address on loopback.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return mux
}
