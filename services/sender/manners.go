package sender

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"defenderiot/pkg/devo"
)

const (
	// maxStrikes is how often in a row an endpoint that is held to close_notify may leave it out before it is
	// taken for one that has changed.
	maxStrikes = 3
	// forgiveness is how many windows in a row must end with close_notify until strikes are forgotten.
	forgiveness = 100
)

// errNoNotify is why a window is not confirmed although both FINs were seen.
var errNoNotify = errors.New("the endpoint ended the connection without the TLS close_notify that it has sent so far: it may have been stopped and have dropped what it had not read")

// manners remembers whether an endpoint says close_notify before its FIN. A program that reads to the end of its
// input and then closes does, if its TLS library does at all; the same program when it is stopped shuts the
// socket down as it is, also behind our half-close, and drops what it has not read (measured with syslog-ng
// 3.38). So an endpoint that says it is held to it:
//
//	            close_notify                  no close_notify, for the 4th time
//	unknown ───────────────────────> held ────────────────────────────────────────> changed
//	   │ no close_notify: confirmed    │ no close_notify: broken, sent again            │ no close_notify: confirmed
//	                                   └<───────── 100 times close_notify in a row ─────┘
//
// The windows that end together, as those of several connections do when an endpoint stops, count as one time. It
// is safe for concurrent use.
type manners struct {
	logger *slog.Logger
	name   string

	mu      sync.Mutex
	held    bool
	changed bool
	strikes int
	last    time.Time // of the last strike
	polite  int       // in a row
}

// judge returns nil if proof, of a window that was opened at that time, is one: else why not.
func (m *manners) judge(ctx context.Context, proof devo.Proof, opened time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if proof == devo.Confirmed {
		if m.polite++; m.polite >= forgiveness {
			m.strikes, m.changed = 0, false
		}
		m.held = !m.changed
		return nil
	}
	m.polite = 0
	if !m.held {
		return nil
	}
	if opened.After(m.last) {
		m.strikes++
		m.last = time.Now()
	}
	if m.strikes <= maxStrikes {
		return errNoNotify
	}
	m.held, m.changed = false, true
	m.logger.WarnContext(ctx, "the endpoint ends connections without the TLS close_notify that it used to send; from now on its FIN counts as the proof", "output", m.name)
	return nil
}
