package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The identity that the simulated tenant knows. The secret guards nothing.
const (
	TenantID     = "00000000-0000-0000-0000-0000000000aa"
	ClientID     = "00000000-0000-0000-0000-0000000000cc"
	ClientSecret = "simulated-client-secret"
	Audience     = "https://management.core.windows.net/"
)

// Options are the settings of a [Simulator]. All fields may be left out.
type Options struct {
	// AzureListen and DevoListen are addresses, "127.0.0.1:0" if empty.
	// ControlListen serves the control interface, none if empty.
	AzureListen, DevoListen, ControlListen string
	// Host is the name under which clients reach the simulator: it is put into
	// certificates and the configuration. 127.0.0.1 if empty.
	Host string
	// AuthorityDir keeps the certificate authorities over a restart; without
	// it they are made anew each time.
	AuthorityDir string
	// Absolute makes the written configuration name certificates by their full paths, for a collector whose
	// working directory is another one.
	Absolute bool
	// BusUser and BusPassword, if not "", go into the written configuration: the collector's user at a
	// nats-server whose address the collector is told otherwise.
	BusUser, BusPassword string
	// PlainDevo makes the Devo endpoint speak TCP without TLS.
	PlainDevo bool

	// Generator says how alerts look. Its Start and Spread are those of the
	// Backfill; if zero, the last hour.
	Generator GeneratorOptions
	// Backfill is how many alerts are there from the beginning.
	Backfill int
	// Rate is how many alerts a second happen after Start.
	Rate float64
	// Quota limits the queries; none by default, see AzureQuota.
	Quota Quota

	// OnFrame and KeepFrames are those of DevoOptions.
	OnFrame    func(frame []byte)
	KeepFrames bool
	// Logger gets what goes wrong within the simulator; nothing if nil.
	Logger *slog.Logger
}

// Simulator is all parts together in one process. New, Start and Close are
// called once, in this order; Close may be repeated. The parts are reachable
// for faults and figures from New on and safe for concurrent use.
type Simulator struct {
	Login     *Login
	Graph     *Graph
	Devo      *Devo
	Generator *Generator

	opts    Options
	azureCA *Authority
	devoCA  *Authority
	cancel  context.CancelFunc
	ctx     context.Context
	wg      sync.WaitGroup
	mu      sync.Mutex
	servers []*http.Server
	azure   string
	control string
}

// New makes a simulator that does not listen yet. An error is about
// certificates only.
func New(o Options) (*Simulator, error) {
	if o.AzureListen == "" {
		o.AzureListen = "127.0.0.1:0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Generator.Start.IsZero() {
		o.Generator.Start = time.Now().Add(-time.Hour)
		if o.Generator.Spread == 0 {
			o.Generator.Spread = time.Hour - time.Second
		}
	}
	if len(o.Generator.Subscriptions) == 0 {
		o.Generator.Subscriptions = DefaultSubscriptions()
	}
	s := &Simulator{opts: o, Generator: NewGenerator(o.Generator)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.azureCA, err = o.authority("azure"); err != nil {
		return nil, err
	}
	if s.devoCA, err = o.authority("devo"); err != nil {
		return nil, err
	}
	s.Login = NewLogin(TenantID, Audience, App{ClientID: ClientID, Secret: ClientSecret})
	s.Graph = NewGraph(s.Login)
	s.Graph.SetQuota(o.Quota)
	for i, sub := range o.Generator.Subscriptions {
		s.Graph.AddSubscription(sub, fmt.Sprintf("Plant %d", i+1), "simulated-group")
	}
	s.Graph.Add(s.Generator.Rows(o.Backfill)...)
	devo := DevoOptions{
		Listen: o.DevoListen, Authority: s.devoCA, Names: o.names(),
		OnFrame: o.OnFrame, KeepFrames: o.KeepFrames,
	}
	if o.PlainDevo {
		devo.Authority = nil
	}
	s.Devo, err = NewDevo(devo)
	return s, err
}

func (o *Options) names() []string {
	if o.Host == "" {
		return nil
	}
	return []string{o.Host}
}

func (o *Options) authority(name string) (*Authority, error) {
	if o.AuthorityDir == "" {
		return NewAuthority("Simulated " + name + " authority")
	}
	return OpenAuthority(o.AuthorityDir+"/"+name, "Simulated "+name+" authority")
}

// Start listens and begins to make alerts. After an error Close must still be
// called.
func (s *Simulator) Start() error {
	cert, err := s.azureCA.Server(Sound, s.opts.names()...)
	if err != nil {
		return err
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if s.azure, err = s.listen(s.opts.AzureListen, Azure(s.Login, s.Graph), secure); err != nil {
		return fmt.Errorf("azure endpoint: %w", err)
	}
	if s.opts.ControlListen != "" {
		if s.control, err = s.listen(s.opts.ControlListen, s.controlHandler(), nil); err != nil {
			return fmt.Errorf("control endpoint: %w", err)
		}
	}
	if err := s.Devo.Start(); err != nil {
		return err
	}
	if s.opts.Rate > 0 {
		s.wg.Go(func() { s.Generator.Feed(s.ctx, s.Graph, s.opts.Rate) })
	}
	return nil
}

// listen serves a handler and returns the address.
func (s *Simulator) listen(addr string, h http.Handler, secure *tls.Config) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen on %s: %w", addr, err)
	}
	bound := l.Addr().String()
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	server := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
		// HTTP/1.1 only: cut bodies and resets concern a whole connection.
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	s.mu.Lock()
	s.servers = append(s.servers, server)
	s.mu.Unlock()
	s.wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("simulator stopped listening", "address", bound, "error", err)
		}
	})
	return bound, nil
}

// AzureURL is the URL of login and graph, once started.
func (s *Simulator) AzureURL() string { return "https://" + s.reachable(s.azure) }

// ControlURL is the URL of the control interface, "" without one.
func (s *Simulator) ControlURL() string {
	if s.control == "" {
		return ""
	}
	return "http://" + s.control
}

// AzureAuthority signs the certificate of login and graph.
func (s *Simulator) AzureAuthority() *Authority { return s.azureCA }

// DevoAuthority signs the Devo endpoint's certificate and those of clients.
func (s *Simulator) DevoAuthority() *Authority { return s.devoCA }

// reachable replaces an address's host by the name that clients use.
func (s *Simulator) reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if s.opts.Host != "" {
		host = s.opts.Host
	} else if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Close stops everything: no alerts, stalled answers are dropped, connections
// closed. It waits until ctx ends, and may be called again.
func (s *Simulator) Close(ctx context.Context) error {
	s.cancel()
	s.mu.Lock()
	servers := s.servers
	s.mu.Unlock()
	var errs []error
	for _, server := range servers {
		if server.Shutdown(ctx) != nil {
			errs = append(errs, server.Close())
		}
	}
	errs = append(errs, s.Devo.Close(ctx))
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("simulator: still running: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}
