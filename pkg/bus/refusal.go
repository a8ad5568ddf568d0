package bus

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"

	"defenderiot/pkg/fault"
)

// ErrRefused: the server's configuration does not give this user the right. Nothing was stored or changed. The
// text says which user and which subject; trying again helps only after somebody has changed the configuration.
var ErrRefused = errors.New("refused by the bus")

// refusal is one permission that the server did not have for this user.
type refusal struct {
	user, action, subject string
}

// The words of nats-server 2.15, client.go.
var refusedSubject = regexp.MustCompile(`(?i)permissions violation for (publish to|publish with reply of|subscription to) "([^"]+)"`)

func parseRefusal(user string, err error) (refusal, bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return refusal{}, false
	}
	r := refusal{user: user, action: "do something", subject: err.Error()}
	if found := refusedSubject.FindStringSubmatch(err.Error()); found != nil {
		r.subject = found[2]
		switch strings.ToLower(found[1]) {
		case "publish to":
			r.action = "publish to"
		case "publish with reply of":
			r.action = "ask for an answer on"
		default:
			r.action = "subscribe to"
		}
	}
	return r, true
}

func (r refusal) subscription() bool { return r.action == "subscribe to" }

// kind is r without what differs from one message to the next: who lacks one right lacks it for all of them. It is
// written as the right is in the server's configuration.
func (r refusal) kind() refusal {
	n := 2 // the stream's own subjects, and a bucket's
	switch {
	case strings.HasPrefix(r.subject, apiPrefix):
		return r
	case strings.HasPrefix(r.subject, "$JS.ACK."):
		n = 4
	}
	if tokens := strings.Split(r.subject, "."); len(tokens) > n {
		r.subject = strings.Join(tokens[:n], ".") + ".>"
	}
	return r
}

func (r refusal) err() error {
	r = r.kind()
	user := "the user " + r.user
	if r.user == "" {
		user = "a connection without a user"
	}
	return fault.WithHint(fmt.Errorf("%w: %s may not %s %q", ErrRefused, user, r.action, r.subject),
		"is bus.user the one for this program? `collector nats-config` prints what each user needs; put it into the server's configuration and reload that (docs/privilege.md)")
}

// watch is a call that fails at once when a subject of its is refused.
type watch struct {
	cancel   context.CancelCauseFunc
	subjects []string // none: any subject
}

func (w *watch) concerns(r refusal) bool {
	if len(w.subjects) == 0 || r.subscription() {
		return true // without its inbox no call gets an answer
	}
	for _, s := range w.subjects {
		if prefix, all := strings.CutSuffix(s, ">"); r.subject == s || all && strings.HasPrefix(r.subject, prefix) {
			return true
		}
	}
	return false
}

// guard makes a call fail when the server refuses one of its subjects, which would look like a time-out else:
// the server answers nothing to the call, and tells the connection. A subject that ends in ".>" stands for all that
// begin so; none stands for every subject. The call is to use the context, and give its error to
// explain, which puts the refusal in its place and has to be called.
func (b *Bus) guard(ctx context.Context, subjects ...string) (guarded context.Context, explain func(error) error) {
	guarded, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel, subjects: subjects}
	b.mu.Lock()
	b.watches[w] = struct{}{}
	if b.deaf != nil {
		cancel(b.deaf)
	}
	b.mu.Unlock()
	return guarded, func(err error) error {
		b.mu.Lock()
		delete(b.watches, w)
		b.mu.Unlock()
		if cause := context.Cause(guarded); err != nil && errors.Is(cause, ErrRefused) {
			err = cause
		}
		cancel(nil)
		return err
	}
}

// Guard is a context that ends with [ErrRefused] as its cause when the server refuses anything to this
// connection: for a command, which is alone on its own. Call stop when it is done.
func (b *Bus) Guard(ctx context.Context) (guarded context.Context, stop func(error) error) {
	return b.guard(ctx)
}

// refuse ends the calls that r concerns. If there is none, as with acknowledgements, which nobody waits for, it
// is logged, once for each right.
func (b *Bus) refuse(r refusal) {
	b.mu.Lock()
	heard := false
	for w := range b.watches {
		if w.concerns(r) {
			heard = true
			w.cancel(r.err())
		}
	}
	if r.subscription() {
		b.deaf = r.err() // an inbox, and the client does not try again before it has reconnected
	}
	// A call that has failed by the first refusal of a batch does not hear the others.
	kind := r.kind()
	known := heard || b.refused[kind]
	if len(b.refused) < 100 {
		b.refused[kind] = true
	}
	b.mu.Unlock()
	if !known {
		err := r.err()
		b.logger.Error(err.Error(), "hint", fault.Hint(err))
	}
}
