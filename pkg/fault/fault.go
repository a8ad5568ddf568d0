// Package fault is the project's few error classes: what an error is called, what an operator does
// about it, and whether trying again makes sense.
//
// Two independent things are said about an error. Its name, an [*Error], is what people search their
// logs for: a type and a four-digit code that the known collector also prints. Its class is what the
// retrying stage reads: [Permanent] (never try this item again), [RetryAfter] (the other side said
// when) or [ShuttingDown] (no failure at all: keep the item). An error without a class is transient:
// the stage tries again by its own backoff.
package fault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The names of the error types, as they stand in the logs.
const (
	TypeConfiguration = "CollectorConfigurationException"
	TypeInitVariables = "InitVariablesError"
	TypeSetup         = "SetupError"
	TypePrePull       = "PrePullError"
	TypePull          = "PullError"
	TypeAPI           = "ApiError"
)

// Error is an error that has a name. It is immutable once made and safe for concurrent use.
type Error struct {
	// Type is one of the Type constants.
	Type string
	// Code is the number within the type, printed with four digits.
	Code int
	// Reason is the message after the code; it never contains a secret.
	Reason string
	// Hint says what to do about it, in one sentence; it may be empty.
	Hint string
	// Cause is what made it happen; it may be nil and is not printed by Error, because Reason
	// already tells it in the words people know.
	Cause error
}

// Error returns the known one-line form, `Type [CODE:0101] reason: message`; configuration errors keep
// the form that people know for those.
func (e *Error) Error() string {
	if e.Type == TypeConfiguration {
		return fmt.Sprintf(`%s [CODE:%04d] Error in configuration, cause: %s`, e.Type, e.Code, asIs.Replace(strconv.Quote(e.Reason)))
	}
	return fmt.Sprintf("%s [CODE:%04d] reason: %s", e.Type, e.Code, e.Reason)
}

// asIs takes back what quoting does to printable characters: in the known form the cause stands between quotes as it is.
var asIs = strings.NewReplacer(`\\`, `\`, `\"`, `"`)

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Config is an error of the configuration file; the program exits with 255 and starts nothing.
func Config(code int, format string, args ...any) *Error {
	return newError(TypeConfiguration, code, format, args)
}

// InitVariables is an error of a setting that is checked at start; the program exits with 255.
func InitVariables(code int, format string, args ...any) *Error {
	return newError(TypeInitVariables, code, format, args)
}

// Setup is an error of the token or of the test fetch; it is retried with growing waits.
func Setup(code int, format string, args ...any) *Error {
	return newError(TypeSetup, code, format, args)
}

// PrePull is an error of the record that is read before the first pull.
func PrePull(code int, format string, args ...any) *Error {
	return newError(TypePrePull, code, format, args)
}

// Pull is an error of a pull that is not the provider's answer.
func Pull(code int, format string, args ...any) *Error {
	return newError(TypePull, code, format, args)
}

// API is an error answer of the provider; the code is the HTTP status, or 498 for any 5xx.
func API(code int, format string, args ...any) *Error {
	return newError(TypeAPI, code, format, args)
}

// newError takes the error, if any, among args as the cause.
func newError(kind string, code int, format string, args []any) *Error {
	e := &Error{Type: kind, Code: code, Reason: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			e.Cause = cause
		}
	}
	return e
}

// WithHint returns a copy of e that carries the hint.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// hinted carries a hint on an error that has no name.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// WithHint attaches what to do about err. A nil err stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{error: err, hint: hint}
}

// Hint returns the outermost hint in err's tree, or "".
func Hint(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
