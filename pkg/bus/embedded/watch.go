package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"defenderiot/pkg/fault"
)

const (
	// watchPeriod is how often the server is asked whether it stores.
	watchPeriod = time.Second
	// answerTime is how long it may take to answer; a sick disk makes it slow, a deadlock for ever.
	answerTime = 10 * time.Second
	// room is what the folder must take before a restart: some batches, and what a stopping and a starting server write.
	room = 16 << 20
	// purgeRoom is what a purge must find: its tombstones.
	purgeRoom = 1 << 20
	roomFile  = "room"
	// longest is the longest wait between two restarts that did not help, calm how long a server has to live to have helped.
	longest = 15 * time.Second
	calm    = time.Minute
)

// stopTime is how long the old server may take to stop; what it has acknowledged is on disk already.
var stopTime = 10 * time.Second

// errSilent is the trouble of a server that does not answer.
var errSilent = fmt.Errorf("the server has not answered for %v", answerTime)

// watch replaces the server when its streams have stopped, until ctx ends:
//
//	            a stream has a write error, JetStream is off,
//	            or no answer for 10 s
//	┌─────────┐ ─────────────────────────────────────────────> ┌────────┐ ─┐ the folder does not take 16 MiB:
//	│ running │                                                 │ frozen │  │ look again after a second
//	└─────────┘ <──────────┐                                    └────────┘ <┘
//	                       │ the new one has recovered             │  ↑ the new one does not start:
//	                       │ its streams                           │  │ growing waits, at most 15 s
//	                       │                                       │  │ the folder takes 16 MiB, written and synced,
//	                       │                                       ↓  │ and the server is no better
//	                       │                                    ┌────────────┐
//	                       └─────────────────────────────────── │ restarting │
//	                                                            └────────────┘
//	                                                               │ the old one does not stop within 10 s
//	                                                               ↓
//	                                                            ┌───────┐
//	                                                            │ stuck │ the process ends with 1
//	                                                            └───────┘
//
// A server that freezes again within a minute is given growing waits, too. A disk that is nearly full is told in the state running already.
func (s *Server) watch(ctx context.Context) {
	defer close(s.watched)
	look := &inspection{}
	var wait time.Duration
	var since time.Time // the last restart
	for pause(ctx, watchPeriod) {
		err := s.inspect(look)
		if err == nil {
			if err = s.scarce(); err == nil {
				s.recovered()
			} else {
				s.failed(err)
			}
			continue
		}
		s.failed(err)
		if !s.restartHelps(look, s.tryRoom) {
			continue
		}
		if time.Since(since) > calm {
			wait = 0
		} else {
			wait = min(max(2*wait, time.Second), longest)
		}
		if !pause(ctx, wait) {
			return
		}
		since = time.Now()
		if err := s.restart(); errors.Is(err, ErrStuck) {
			if s.settings.Stuck != nil {
				s.settings.Stuck(err)
			}
			return
		} else if err != nil {
			s.failed(err)
		}
		look = &inspection{}
	}
}

// restartHelps reports whether a server in trouble is to be restarted. Without the proof that there is room it would only
// freeze again. A disk that stands still holds up the server and the proof alike, so the server is asked again behind it:
// it may only have been slow.
func (s *Server) restartHelps(look *inspection, tryRoom func(bytes int) error) bool {
	if err := tryRoom(room); err != nil {
		s.failed(err)
		return false
	}
	return s.inspect(look) != nil
}

// Err is nil while the server stores what it is given. Else it says why not, and what is to be done: for readiness.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// Room is nil where the folder takes a purge's writes; for who is about to purge. nats-server 2.15.2 can wait for itself
// for ever when the disk is full just then (filestore.go: compactLocked, flushPendingMsgs, rebuildState).
func (s *Server) Room() error {
	if err := s.Err(); err != nil {
		return err
	}
	return s.tryRoom(purgeRoom)
}

// scarce is the error of a disk that is as good as full. Not every write that fails stops a stream, so the server may
// be well and store nothing all the same; and who is told in time can act in time. It is over at twice the room, so
// that it does not come and go.
func (s *Server) scarce() error {
	least := uint64(room)
	if s.Err() != nil {
		least *= 2
	}
	if left, known := free(s.settings.Dir); known && left < least {
		return fmt.Errorf("the disk has %d KiB left; the bus needs %d MiB to work", left>>10, room>>20)
	}
	return nil
}

func (s *Server) failed(err error) {
	err = fault.WithHint(err, fmt.Sprintf("make room on the disk of %s, or make it writable again (if that takes an unmount, stop the collector before): the server is restarted by itself then where that is needed, and nothing that was acknowledged is lost", s.settings.Dir))
	s.mu.Lock()
	s.trouble = err
	s.mu.Unlock()
	s.health.Report(err)
}

func (s *Server) recovered() {
	s.mu.Lock()
	s.trouble = nil
	s.mu.Unlock()
	s.health.Resolve()
	s.log.settle()
}

// inspection is a question to one server. It has a goroutine of its own, because a server in a deadlock never answers;
// there is one at a time, and it ends with the answer or with the process.
type inspection struct {
	answer chan error // nil: nothing is asked
}

// inspect asks the running server for its health.
func (s *Server) inspect(i *inspection) error {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return errors.New("no server runs")
	}
	if i.answer == nil {
		answer := make(chan error, 1)
		i.answer = answer
		go func() { answer <- s.writeError(running) }()
	}
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case err := <-i.answer:
		i.answer = nil
		return err
	case <-timer.C:
		return errSilent
	}
}

// writeError is what only a restart mends. Other things that a server has to say, such as a stream that it could not
// recover, a restart does not mend.
func (s *Server) writeError(running *server.Server) error {
	var found []string
	for _, e := range running.Healthz(&server.HealthzOptions{Details: true}).Errors {
		switch {
		case e.Type == server.HealthzErrorJetStream: // which it switches off after a write that is not allowed
			found = append(found, e.Error+": "+s.log.fatal())
		case e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error"):
			found = append(found, e.Error)
		}
	}
	if found == nil {
		return nil
	}
	return errors.New(strings.Join(found, "; "))
}

// tryRoom writes what has to fit, since the number of free blocks says nothing of quotas, reserves or a medium that is
// read-only.
func (s *Server) tryRoom(bytes int) error {
	path := filepath.Join(s.settings.Dir, roomFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path) //nolint:errcheck // the next one writes over it
	chunk := make([]byte, 1<<20)
	for written := 0; written < bytes && err == nil; written += len(chunk) {
		_, err = f.Write(chunk)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// restart replaces the server by a new one on the same folder, address and users. An error that wraps [ErrStuck] is
// for good; after another one no server runs, and it can be called again.
func (s *Server) restart() error {
	began := time.Now()
	s.mu.Lock()
	old := s.running
	s.mu.Unlock()
	if old != nil {
		s.settings.Logger.Info("the folder of the embedded server takes writes: the server is restarted")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			old.Shutdown()
			old.WaitForShutdown()
		}()
		timer := time.NewTimer(stopTime)
		defer timer.Stop()
		select {
		case <-stopped:
		case <-timer.C:
			s.mu.Lock()
			s.stuck = true
			s.mu.Unlock()
			return fault.WithHint(fmt.Errorf("%w within %v, and its streams have stopped after a write error", ErrStuck, stopTime),
				"start this program again, as its supervisor does after exit code 1: nothing that was acknowledged is lost")
		}
	}
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	srv, err := s.launch()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.running = srv
	s.mu.Unlock()
	s.settings.Logger.Info("the embedded server is restarted", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// pause waits for d; it reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
