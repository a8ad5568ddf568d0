package fault

import (
	"errors"
	"fmt"
	"time"
)

type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

// Permanent marks err: trying the same item again can never succeed. The stage makes a dead letter of
// the item and goes on. A nil err stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

// IsPermanent reports whether err is marked [Permanent].
func IsPermanent(err error) bool {
	var p *permanent
	return errors.As(err, &p)
}

type retryAfter struct {
	error
	delay time.Duration
}

func (r *retryAfter) Unwrap() error { return r.error }

// RetryAfter marks err: the other side said that another try makes sense after d and not before.
// A nil err stays nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, d}
}

// Delay returns the wait that [RetryAfter] attached to err.
func Delay(err error) (time.Duration, bool) {
	var r *retryAfter
	if errors.As(err, &r) {
		return r.delay, true
	}
	return 0, false
}

// ErrShuttingDown is what [ShuttingDown] wraps: the service is stopping, nothing failed, the item stays
// where it is and is handled after the next start.
var ErrShuttingDown = errors.New("shutting down")

// ShuttingDown wraps err (nil is allowed) as the shutting-down class.
func ShuttingDown(err error) error {
	if err == nil {
		return ErrShuttingDown
	}
	return fmt.Errorf("%w: %w", ErrShuttingDown, err)
}

// IsShuttingDown reports whether err is of the shutting-down class.
func IsShuttingDown(err error) bool { return errors.Is(err, ErrShuttingDown) }
