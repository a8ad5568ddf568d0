// Package embedded runs the NATS JetStream server inside the process: the default on one machine. A server whose
// streams have stopped after a write error, as on a full disk, is replaced in the running process; see [Server].
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
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
	"defenderiot/pkg/telemetry"
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
	// readyTurn is how often it is asked meanwhile whether the server has given up.
	readyTurn = time.Second

	lockFile = "lock"
	// runningFile is there while services run on the folder, and after that unless they were stopped in order.
	runningFile = "running"
)

// ErrInUse: another process runs an embedded server on the folder.
var ErrInUse = errors.New("the state folder is in use by another collector")

// ErrStuck: the server has to be restarted and cannot be stopped. A new process can go on with the folder.
var ErrStuck = errors.New("the embedded server cannot be stopped")

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
	// Stuck is called at most once, with an error that wraps [ErrStuck], from a goroutine of the server: the process
	// should end, since only a new one can go on with the folder. nil: nobody wants to know.
	Stuck func(error)
}

// Server is a running embedded server. It watches itself: nats-server gives a stream up for good after the first
// write that fails, and only a new server takes it up again. See watch for the states. Address, users and tokens
// stay the same over a restart, and the folder stays locked, so connections come back by themselves. It is safe for
// concurrent use.
type Server struct {
	settings Settings
	host     string
	port     int
	lock     *flock.Flock
	conn     bus.Connection
	token    string            // of the owner
	tokens   map[string]string // of the users with a part only
	log      *logger
	health   *telemetry.Incident

	begun  atomic.Bool // services run on it
	copied bool        // the folder was, since the last start on it

	mu      sync.Mutex
	running *server.Server // nil while it is replaced
	trouble error          // why nothing is stored; nil while all is well
	stuck   bool           // the old server cannot be stopped

	once    sync.Once
	endWait context.CancelFunc
	watched chan struct{}
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
	srv := &Server{
		settings: s, host: host, port: port, lock: lock, token: rand.Text(), tokens: map[string]string{}, log: newLogger(s.Logger),
		health:  telemetry.NewIncident(s.Logger, "storing on the embedded bus"),
		watched: make(chan struct{}), stopped: make(chan struct{}),
	}
	for _, p := range bus.Permissions() {
		srv.tokens[p.User] = rand.Text()
	}
	if srv.running, err = srv.launch(); err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	address := srv.running.Addr().(*net.TCPAddr)
	srv.port = address.Port // for the next one, too
	srv.conn = bus.Connection{URL: "nats://" + address.String(), User: owner, Token: srv.token, PID: os.Getpid()}
	if srv.copied, err = copied(s.Dir); err != nil {
		s.Logger.Warn("nobody can tell whether the state folder is a restored copy", "error", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv.endWait = cancel
	go srv.watch(ctx)
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

// launch starts a nats-server on the folder and returns when it has recovered its streams.
func (s *Server) launch() (*server.Server, error) {
	acc := server.NewAccount(bus.Account)
	options := &server.Options{
		ServerName:         "collector-embedded",
		Host:               s.host,
		Port:               s.port,
		NoSigs:             true, // else the library ends the process on SIGTERM
		NoLog:              true,
		JetStream:          true,
		StoreDir:           s.settings.Dir,
		JetStreamMaxStore:  maxStore,
		JetStreamMaxMemory: 64 << 20,
		SyncAlways:         s.settings.SyncInterval == 0,
		SyncInterval:       s.settings.SyncInterval,
		MaxPayload:         MaxPayload,
		MaxPending:         256 << 20,
		Accounts:           []*server.Account{acc},
		Users:              append(s.users(acc), &server.User{Username: owner, Password: s.token, Account: acc}),
	}
	if s.settings.SyncInterval == 0 {
		options.SyncInterval = 2 * time.Minute // what is left for the background pass; every write is synced
	}
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	s.log.begin()
	srv.SetLoggerV2(s.log, false, false, false)
	srv.Start()
	if err := s.started(srv); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	return srv, nil
}

// started waits until the server is ready.
func (s *Server) started(srv *server.Server) error {
	for end := time.Now().Add(readyTimeout); !srv.ReadyForConnections(readyTurn); {
		// It says why it does not start, and then only never gets ready.
		if s.log.given() || time.Now().After(end) {
			return fmt.Errorf("embedded server on %s did not start: %s", s.settings.Listen, s.log.fatal())
		}
	}
	running, err := srv.LookupAccount(bus.Account)
	if err == nil && !running.JetStreamEnabled() {
		err = running.EnableJetStream(nil, nil)
	}
	if err != nil {
		return fmt.Errorf("embedded server: streams in %s: %w", s.settings.Dir, err)
	}
	if srv.Addr() == nil {
		return fmt.Errorf("embedded server does not listen on %s: %s", s.settings.Listen, s.log.fatal())
	}
	return nil
}

// users are the bus's, with passwords that nobody outside of the process knows.
func (s *Server) users(acc *server.Account) (users []*server.User) {
	for _, p := range bus.Permissions() {
		users = append(users, &server.User{Username: p.User, Password: s.tokens[p.User], Account: acc, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: p.Publish},
			Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
		}})
	}
	return users
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
func (s *Server) InProcess() nats.InProcessConnProvider { return s }

// InProcessConn implements [nats.InProcessConnProvider]: it leads to the server that runs at the moment.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return nil, errors.New("the embedded server is being restarted")
	}
	return running.InProcessConn()
}

// Connection says how to reach the server, with the right to do everything.
func (s *Server) Connection() bus.Connection { return s.conn }

// Settings are for a connection from within the process as one of the bus's users, with that user's permissions
// only. It panics for a user that [bus.Permissions] does not have.
func (s *Server) Settings(user, name string, logger *slog.Logger) bus.Settings {
	token, ok := s.tokens[user]
	if !ok {
		panic("embedded: the bus has no user " + user)
	}
	return bus.Settings{InProcess: s, User: user, Password: secret.New(token), Name: name, Logger: logger}
}

// Interrupted reports whether services ran on the folder that were not stopped in order: killed, or the machine lost
// power. Then the server may have forgotten that it delivered what was in hand.
func (s *Server) Interrupted() bool {
	_, err := os.Stat(filepath.Join(s.settings.Dir, runningFile))
	return err == nil
}

// Begin notes durably that services begin to run on the folder, until Shutdown has stopped the server in order. A
// server on which it was not called, as for a command, leaves the note as it is. Errors are the file system's.
func (s *Server) Begin() error {
	s.begun.Store(true)
	f, err := os.OpenFile(filepath.Join(s.settings.Dir, runningFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	folder, err := os.Open(s.settings.Dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Shutdown stops the server in order: consumers' and streams' state is flushed, the lock released. It returns
// ctx's error when that takes longer, and one that wraps [ErrStuck] at once where it cannot be; then the lock stays
// with the process, which should end. Nothing is lost by that: what the server has acknowledged is on disk, and only
// its next start takes longer. It can be called again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.once.Do(func() {
		bus.RemoveConnection(s.settings.Dir)
		s.endWait()
		go func() {
			defer close(s.stopped)
			<-s.watched
			if running := s.running; running != nil && !s.stuck { // nobody changes them any more
				running.Shutdown()
				running.WaitForShutdown()
				if s.begun.Load() {
					_ = os.Remove(filepath.Join(s.settings.Dir, runningFile)) // left: the next start takes more care than it needs to
				}
			}
			if !s.stuck {
				_ = s.lock.Unlock()
			}
		}()
	})
	select {
	case <-s.stopped:
		if s.stuck {
			return ErrStuck
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the embedded server: %w", ctx.Err())
	}
}
