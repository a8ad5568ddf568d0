package resourcegraph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"defenderiot/pkg/fault"
)

// What a caller of [Client.Page] acts on, found with errors.Is.
var (
	// ErrPayloadTooLarge: the page would exceed 16 MiB. Ask for half the rows; if one row is too
	// large, split the window.
	ErrPayloadTooLarge = errors.New("the page is larger than Resource Graph allows")
	// ErrTokenRejected: the skip token is no longer good. Start the window again.
	ErrTokenRejected = errors.New("the skip token was rejected")
	// ErrTableMissing: this cloud does not have the table. Nothing but the configuration changes that.
	ErrTableMissing = errors.New("the cloud does not have the table")
	// ErrInvalidQuery: Resource Graph does not understand the query. The same text fails again.
	ErrInvalidQuery = errors.New("the query is invalid")
	// ErrTransient: no token for a reason that passes by itself: no answer, or the login endpoint is at fault.
	ErrTransient = errors.New("a transient fault of signing in")
)

// The numbers of the errors that are no answer's status.
const (
	codeSettings   = 6
	codeTable      = 15
	codeToken      = 101
	codeNoAnswer   = 301
	codeUnreadable = 302
	codeServer     = 498
)

// ResponseError is what Azure answered instead of a page. It is the cause of an ApiError.
type ResponseError struct {
	// Status is the HTTP status.
	Status int
	// Code and Detail are error.code and error.details[0].code; the detail is the useful one.
	Code, Detail string
	// CorrelationID is what Microsoft's support asks for.
	CorrelationID string

	excerpt string
	kind    error
}

// Error returns a short, cleaned piece of the answer.
func (e *ResponseError) Error() string { return e.excerpt }

// Unwrap returns the sentinel that the answer means, if any.
func (e *ResponseError) Unwrap() error { return e.kind }

var correlation = regexp.MustCompile(`correlationId = ([0-9A-Za-z-]+)`)

// refusal reads an error answer, whose shape nobody guarantees.
func (c *Client) refusal(r *azcore.ResponseError, q Query) *ResponseError {
	e := &ResponseError{Status: r.StatusCode}
	var body []byte
	if r.RawResponse != nil {
		body, _ = runtime.Payload(r.RawResponse)
		e.CorrelationID = c.clean.excerpt([]byte(r.RawResponse.Header.Get("X-Ms-Correlation-Request-Id")))
	}
	var envelope struct {
		Error struct {
			Code    string
			Message string
			Details []struct{ Code string }
		}
	}
	if json.Unmarshal(body, &envelope) == nil {
		e.Code = c.clean.excerpt([]byte(envelope.Error.Code))
		if len(envelope.Error.Details) > 0 {
			e.Detail = c.clean.excerpt([]byte(envelope.Error.Details[0].Code))
		}
		if m := correlation.FindStringSubmatch(envelope.Error.Message); m != nil {
			e.CorrelationID = m[1]
		}
	}
	e.excerpt = c.clean.excerpt(body)
	if e.excerpt == "" {
		e.excerpt = fmt.Sprintf("%s, HTTP status %d without a body", c.endpoint, e.Status)
	}
	if e.Status == http.StatusBadRequest {
		switch {
		case e.Detail == "ResponsePayloadTooLarge":
			e.kind = ErrPayloadTooLarge
		case e.Detail == "DisallowedLogicalTableName":
			e.kind = ErrTableMissing
		case e.Detail == "TooManySubscriptionsUnderScope":
		case q.SkipToken != "":
			e.kind = ErrTokenRejected
		case e.Detail == "InvalidQuery":
			e.kind = ErrInvalidQuery
		}
	}
	return e
}

// explain gives an error of the pipeline its name, class and hint.
func (c *Client) explain(ctx context.Context, err error, q Query) error {
	if ctx.Err() != nil {
		return fmt.Errorf("asking Azure Resource Graph: %w", ctx.Err())
	}
	var limited *limitedError
	var blocked *blockedError
	var token *tokenError
	var refused *azcore.ResponseError
	switch {
	case errors.As(err, &limited):
		return fault.RetryAfter(fmt.Errorf("asking Azure Resource Graph: %w", ErrLimited), limited.wait)
	case errors.As(err, &blocked):
		return fault.RetryAfter(fault.API(http.StatusTooManyRequests, "Error during API call to %s: %v", c.endpoint, blocked).
			WithHint(hintThrottled), blocked.wait)
	case errors.As(err, &token):
		return c.tokenFault(token)
	case errors.As(err, &refused):
		return c.apiFault(refused, q)
	case errors.Is(err, errBodyTooLarge):
		return fault.Pull(codeUnreadable, "Unreadable answer from %s: %v.", c.endpoint, fmt.Errorf("%w (%w)", errBodyTooLarge, ErrPayloadTooLarge))
	}
	lost := c.clean.error(err)
	return fault.Pull(codeNoAnswer, "No answer from %s. Exception: %v.", c.endpoint, lost).WithHint(networkHint(err))
}

func (c *Client) apiFault(refused *azcore.ResponseError, q Query) error {
	e := c.refusal(refused, q)
	code := e.Status
	if code >= 500 {
		code = codeServer
	}
	named := fault.API(code, "Error during API call to %v", e)
	if e.kind == ErrTableMissing {
		named = fault.Config(codeTable, "the configured cloud does not have the table that holds Defender for IoT alerts: %v", e).
			WithHint("Defender for IoT alerts are not in this cloud's Resource Graph: check cloud and custom_cloud.")
	}
	if hint := c.apiHint(e, q); hint != "" && named.Hint == "" {
		named = named.WithHint(hint)
	}
	if e.Status == http.StatusTooManyRequests || e.Status >= 500 {
		if delay, ok := retryDelay(refused.RawResponse.Header, time.Now()); ok {
			return fault.RetryAfter(named, delay)
		}
	}
	return named
}

// unreadable is a 200 whose body is no page. JSON is not quoted: it may hold rows, and their values may
// be under an obfuscation rule.
func (c *Client) unreadable(body []byte, why error) error {
	start := bytes.TrimLeft(body, "\xef\xbb\xbf \t\r\n")
	switch {
	case len(start) == 0:
		why = errors.New("an empty body")
	case start[0] != '{' && start[0] != '[':
		why = fmt.Errorf("%w; it begins with %s", why, c.clean.excerpt(start))
	}
	return fault.Pull(codeUnreadable, "Unreadable answer from %s: %v.", c.endpoint, why).
		WithHint("Something between here and Azure, such as a proxy, may answer in its place; the next pull asks again.")
}

func (c *Client) malformed(what string) error {
	return fault.Pull(codeUnreadable, "Unreadable answer from %s: %s.", c.endpoint, what)
}

// endpoint names where the credential gets its token.
func (c Credential) endpoint(authority string) string {
	switch c.kind() {
	case KindManagedIdentity:
		return "the managed identity endpoint"
	case KindDefault:
		return "the default credential chain"
	}
	tenant := c.TenantID
	if tenant == "" {
		tenant = "{AZURE_TENANT_ID}"
	}
	return strings.TrimRight(authority, "/") + "/" + tenant + "/oauth2/v2.0/token"
}
