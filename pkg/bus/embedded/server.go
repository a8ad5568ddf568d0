// Package embedded runs the NATS JetStream server inside the process: the default on one machine.
//
// It is the same server as a separate one, with the same durability: every acknowledged write is on disk
// (sync_interval always). It listens on loopback only, so that operators' commands and further senders on
// the machine can reach it with the address and token that lie in the state folder, mode 0600.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
)

const (
	// owner may do everything. It is for who can read the state folder, and so everything in it: the commands, further
	// senders and provisioning.
	owner = "owner"
	// MaxPayload is what one message may hold: whatever Azure can answer in a page fits.
	MaxPayload = 32 << 20
	// maxStore is the sum that streams may reserve. The streams have limits of their own; this one only
	// has to be no smaller, since the server's default depends on the disk's free space at start.
	maxStore     = 1 << 46
	readyTimeout = 5 * time.Minute

	lockFile = "lock"
)

// ErrInUse: another process runs an embedded server on the folder.
var ErrInUse = errors.New("the state folder is in use by another collector")

// Settings of the embedded server.
type Settings struct {
	// Dir holds everything: the streams, the lock and the connection file. It is created with mode 0700.
	Dir string
	// Listen is host:port on loopback; port 0 lets the system choose.
	Listen string
	// SyncInterval is 0 for always (fsync before every acknowledgement), else how often to fsync: up to
	// that much can be lost when the machine loses power.
	SyncInterval time.Duration
	Logger       *slog.Logger
}

// Server is a running embedded server.
type Server struct {
	server  *server.Server
	lock    *flock.Flock
	dir     string
	conn    bus.Connection
	tokens  map[string]string // of the users with a part only
	copied  bool
	once    sync.Once
	stopped chan struct{}
}

// Start locks the folder, starts the server and returns when it has recovered its streams, which takes
// seconds for a million alerts.
//
// Errors: one that wraps [ErrInUse] (another process; nothing was touched), or what the server said about
// the folder or the address.
func Start(s Settings) (*Server, error) {
	host, port, err := loopback(s.Listen)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fault.WithHint(fmt.Errorf("state folder of the bus: %w", err),
			fmt.Sprintf("make the folder writable for uid %d, for example: chown -R %d %s", os.Getuid(), os.Getuid(), existing(s.Dir)))
	}
	lock := flock.New(filepath.Join(s.Dir, lockFile), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("lock the state folder: %w", err),
			fmt.Sprintf("make the folder writable for uid %d, for example: chown -R %d %s", os.Getuid(), os.Getuid(), s.Dir))
	}
	if !locked {
		holder := ""
		if c, err := bus.ReadConnection(s.Dir); err == nil {
			holder = " (pid " + strconv.Itoa(c.PID) + ")"
		}
		return nil, fault.WithHint(fmt.Errorf("%w%s: %s", ErrInUse, holder, s.Dir),
			"stop the other collector, or give this one another folder (globals.persistence.config.directory_name); several senders share a bus through bus.url, not through a folder")
	}
	srv, err := start(s, host, port)
	if err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	srv.lock = lock
	if srv.copied, err = copied(s.Dir); err != nil {
		s.Logger.Warn("nobody can tell whether the state folder is a restored copy", "error", err)
	}
	if err := srv.conn.Write(s.Dir); err != nil {
		_ = srv.Shutdown(context.Background()) // nothing runs on it yet
		return nil, err
	}
	return srv, nil
}

// existing is dir or the nearest folder above it that is there: the one whose owner has to change. What cannot be
// looked at may be missing, so the folder that hides it is the one.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func start(s Settings, host string, port int) (*Server, error) {
	token := rand.Text()
	acc := server.NewAccount(bus.Account)
	users, tokens := serviceUsers(acc)
	log := &logger{to: s.Logger}
	options := &server.Options{
		ServerName:         "collector-embedded",
		Host:               host,
		Port:               port,
		NoSigs:             true, // else the library ends the process on SIGTERM
		NoLog:              true,
		JetStream:          true,
		StoreDir:           s.Dir,
		JetStreamMaxStore:  maxStore,
		JetStreamMaxMemory: 64 << 20,
		SyncAlways:         s.SyncInterval == 0,
		SyncInterval:       s.SyncInterval,
		MaxPayload:         MaxPayload,
		MaxPending:         256 << 20,
		Accounts:           []*server.Account{acc},
		Users:              append(users, &server.User{Username: owner, Password: token, Account: acc}),
	}
	if s.SyncInterval == 0 {
		options.SyncInterval = 2 * time.Minute // what is left for the background pass; every write is synced
	}
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("embedded server on %s did not start: %s", s.Listen, log.fatal())
	}
	running, err := srv.LookupAccount(bus.Account)
	if err == nil && !running.JetStreamEnabled() {
		err = running.EnableJetStream(nil, nil)
	}
	if err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("embedded server: streams in %s: %w", s.Dir, err)
	}
	address := srv.Addr()
	if address == nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("embedded server does not listen on %s: %s", s.Listen, log.fatal())
	}
	return &Server{server: srv, dir: s.Dir, stopped: make(chan struct{}), tokens: tokens, conn: bus.Connection{
		URL: "nats://" + address.String(), User: owner, Token: token, PID: os.Getpid(),
	}}, nil
}

// serviceUsers are the bus's users, with passwords that nobody outside of the process knows.
func serviceUsers(acc *server.Account) (users []*server.User, tokens map[string]string) {
	tokens = map[string]string{}
	for _, p := range bus.Permissions() {
		tokens[p.User] = rand.Text()
		users = append(users, &server.User{Username: p.User, Password: tokens[p.User], Account: acc, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: p.Publish},
			Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
		}})
	}
	return users, tokens
}

// loopback refuses to open the collector's bus to the network.
func loopback(listen string) (string, int, error) {
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("bus.embedded.listen %q is not host:port: %w", listen, err)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("bus.embedded.listen %q is not a loopback address; run a nats-server and set bus.url to share the bus between machines", listen)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("bus.embedded.listen %q: the port is not between 0 and 65535", listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// InProcess connects without a socket; see nats.InProcessServer. Authenticate with Connection.
func (s *Server) InProcess() nats.InProcessConnProvider { return s.server }

// Connection says how to reach the server, with the right to do everything.
func (s *Server) Connection() bus.Connection { return s.conn }

// Settings are for a connection from within the process as one of the bus's users, with that user's permissions
// only. It panics for a user that [bus.Permissions] does not have.
func (s *Server) Settings(user, name string, logger *slog.Logger) bus.Settings {
	token, ok := s.tokens[user]
	if !ok {
		panic("embedded: the bus has no user " + user)
	}
	return bus.Settings{InProcess: s.server, User: user, Password: secret.New(token), Name: name, Logger: logger}
}

// Shutdown stops the server in order: consumers' and streams' state is flushed, the lock released. It returns
// ctx's error when that takes longer; then the lock stays with the process, which should end. Nothing is lost
// by that: what the server has acknowledged is on disk, and only its next start takes longer. It can be called
// again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.once.Do(func() {
		bus.RemoveConnection(s.dir)
		go func() {
			defer close(s.stopped)
			s.server.Shutdown()
			s.server.WaitForShutdown()
			if s.lock != nil {
				_ = s.lock.Unlock()
			}
		}()
	})
	select {
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the embedded server: %w", ctx.Err())
	}
}
