package resourcegraph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/fault"
)

func azureError(code, detail, message string) string {
	return fmt.Sprintf(`{"error":{"code":%q,"message":"Please provide below info when asking for support: timestamp = 2026-11-20T07:08:29.0524831Z, correlationId = 0a1b-2c3d.","details":[{"code":%q,"message":%q}]}}`, code, detail, message)
}

func TestErrorAnswers(t *testing.T) {
	page := strings.Repeat("x", 3000)
	for name, tc := range map[string]struct {
		graph http.HandlerFunc
		query Query
		typ   string
		code  int
		text  string // part of the message
		hint  string // part of the hint
		is    error
		tries int
	}{
		"401": {answers(401, azureError("InvalidAuthenticationToken", "", "")), Query{}, fault.TypeAPI, 401,
			`Error during API call to {"error":{"code":"InvalidAuthenticationToken"`, "clock", nil, 2},
		"403": {answers(403, azureError("AccessDenied", "AccessDenied", "Access is denied.")), Query{Subscriptions: []string{"sub-1"}}, fault.TypeAPI, 403,
			"AccessDenied", "Security Reader on subscription sub-1", nil, 1},
		"403 for management groups": {answers(403, azureError("AccessDenied", "AccessDenied", "")), Query{ManagementGroups: []string{"a", "b"}}, fault.TypeAPI, 403,
			"AccessDenied", "management groups a, b", nil, 1},
		"403 for everything": {answers(403, ``), Query{}, fault.TypeAPI, 403,
			"HTTP status 403 without a body", "the subscriptions whose alerts", nil, 1},
		"too large": {answers(400, azureError("BadRequest", "ResponsePayloadTooLarge", "Response payload size is 94330584")), Query{SkipToken: "t"}, fault.TypeAPI, 400,
			"94330584", "fewer rows", ErrPayloadTooLarge, 1},
		"too many subscriptions": {answers(400, azureError("BadRequest", "TooManySubscriptionsUnderScope", "allowed limit 18000")), Query{}, fault.TypeAPI, 400,
			"18000", "management_groups", nil, 1},
		"no such table": {answers(400, azureError("BadRequest", "DisallowedLogicalTableName", "Table iotsecurityresources is invalid")), Query{}, fault.TypeConfiguration, 15,
			"the configured cloud does not have the table", "check cloud", ErrTableMissing, 1},
		"invalid query": {answers(400, azureError("BadRequest", "InvalidQuery", "Query is invalid.")), Query{}, fault.TypeAPI, 400,
			"Query is invalid.", "", ErrInvalidQuery, 1},
		"token rejected": {answers(400, azureError("BadRequest", "InvalidSkipToken", "")), Query{SkipToken: "t"}, fault.TypeAPI, 400,
			"InvalidSkipToken", "from its start", ErrTokenRejected, 1},
		"token rejected, body garbage": {answers(400, "\x00\xff<nonsense"), Query{SkipToken: "t"}, fault.TypeAPI, 400,
			"<nonsense", "from its start", ErrTokenRejected, 1},
		"429": {answers(429, `""`, "Retry-After-Ms", "1"), Query{}, fault.TypeAPI, 429,
			`Error during API call to ""`, "quota_share", nil, 3},
		"500": {answers(500, `{"error":{"code":"InternalServerError"}}`), Query{}, fault.TypeAPI, 498,
			"InternalServerError", "next pull", nil, 3},
		"502 page": {answers(502, "<html>\r\n<h1>Bad\tGateway</h1>"+page), Query{}, fault.TypeAPI, 498,
			"<html> <h1>Bad Gateway</h1>xxx", "next pull", nil, 3},
		"503 empty":  {answers(503, ""), Query{}, fault.TypeAPI, 498, "HTTP status 503 without a body", "next pull", nil, 3},
		"404":        {answers(404, "not here"), Query{}, fault.TypeAPI, 404, "not here", "resource_manager_endpoint", nil, 1},
		"redirect":   {answers(302, "", "Location", "https://elsewhere.invalid/"), Query{}, fault.TypeAPI, 302, "HTTP status 302", "resource_manager_endpoint", nil, 1},
		"no content": {answers(204, ""), Query{}, fault.TypeAPI, 204, "HTTP status 204", "", nil, 1},
		"200 html": {answers(200, "<!DOCTYPE html><title>Sign in</title>"+page), Query{}, fault.TypePull, 302,
			"it begins with <!DOCTYPE html><title>Sign in</title>xxx", "proxy", nil, 1},
		"200 empty":           {answers(200, ""), Query{}, fault.TypePull, 302, "an empty body", "proxy", nil, 1},
		"200 two-byte string": {answers(200, `""`), Query{}, fault.TypePull, 302, `JSON, but no object; it begins with ""`, "proxy", nil, 1},
		"200 broken json":     {answers(200, `{"data":[{"id":"hidden"`), Query{}, fault.TypePull, 302, "broken JSON at byte", "proxy", nil, 1},
		"200 with an error":   {answers(200, azureError("BadRequest", "hidden", "hidden")), Query{}, fault.TypePull, 302, `without "data"`, "proxy", nil, 1},
		"cut body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"data":[{"id":"hidden"`)
		}, Query{}, fault.TypePull, 301, "unexpected EOF", "", io.ErrUnexpectedEOF, 1},
		"connection broken": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Query{}, fault.TypePull, 301, "No answer from https://127.0.0.1", "", nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := startAzure(t, tc.graph)
			p, err := a.client().Page(t.Context(), tc.query)
			var named *fault.Error
			if p != nil || !errors.As(err, &named) {
				t.Fatalf("got %+v, %v", p, err)
			}
			if named.Type != tc.typ || named.Code != tc.code || !strings.Contains(err.Error(), tc.text) || !strings.Contains(fault.Hint(err), tc.hint) ||
				tc.hint == "" && named.Hint != "" {
				t.Errorf("got %v\nhint %s", err, fault.Hint(err))
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v is not %v", err, tc.is)
			}
			if tc.is == nil && (errors.Is(err, ErrPayloadTooLarge) || errors.Is(err, ErrTokenRejected) || errors.Is(err, ErrTableMissing) || errors.Is(err, ErrInvalidQuery)) {
				t.Errorf("%v is something that it should not be", err)
			}
			if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 1024 || strings.Contains(err.Error(), "hidden") {
				t.Errorf("unclean: %q", err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, named.Cause), "token-number") {
				t.Errorf("the token shows in %#v", err)
			}
			// HTTP/1 repeats a request by itself when a kept connection breaks, so at least.
			if got := a.queries(); got < tc.tries || got > tc.tries && name != "connection broken" {
				t.Errorf("%d requests, want %d", got, tc.tries)
			}
		})
	}
}

func TestErrorAnswerCarriesItsCodes(t *testing.T) {
	a := startAzure(t, answers(403, azureError("BadRequest", "AccessDenied", "no")))
	_, err := a.client().Page(t.Context(), Query{})
	var answer *ResponseError
	if !errors.As(err, &answer) || answer.Status != 403 || answer.Code != "BadRequest" || answer.Detail != "AccessDenied" || answer.CorrelationID != "0a1b-2c3d" {
		t.Errorf("%#v", answer)
	}
}

func TestServerErrorCarriesItsWait(t *testing.T) {
	a := startAzure(t, answers(503, "busy", "Retry-After", "120"))
	_, err := a.client().Page(t.Context(), Query{})
	if d, ok := fault.Delay(err); !ok || d != 2*time.Minute || a.queries() != 1 {
		t.Errorf("%v with %v after %d requests", err, d, a.queries())
	}
}

func TestTransientFaultIsTriedAgain(t *testing.T) {
	var n int
	a := startAzure(t, nil)
	a.graph = func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 {
			w.WriteHeader(503)
			return
		}
		io.WriteString(w, `{"data":[]}`)
	}
	if _, err := a.client().Page(t.Context(), Query{}); err != nil || n != 3 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestDeadlineOfARequest(t *testing.T) {
	release := make(chan struct{})
	a := startAzure(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	c := a.client(func(s *Settings) { s.Timeout = time.Second })
	_, err := c.Page(t.Context(), Query{})
	var named *fault.Error
	if !errors.As(err, &named) || named.Type != fault.TypePull || named.Code != 301 || !strings.Contains(named.Hint, "in time") || a.queries() != 1 {
		t.Errorf("%v (%s) after %d requests", err, fault.Hint(err), a.queries())
	}
}

func TestCallersContextEndsARequest(t *testing.T) {
	arrived := make(chan struct{})
	a := startAzure(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := a.client().Page(ctx, Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAnswerWithoutEnd(t *testing.T) {
	a := startAzure(t, func(w http.ResponseWriter, r *http.Request) {
		block := bytes.Repeat([]byte(" "), 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	_, err := a.client().Page(t.Context(), Query{})
	var named *fault.Error
	if !errors.As(err, &named) || named.Code != 302 || !errors.Is(err, ErrPayloadTooLarge) || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("got %v", err)
	}
}
