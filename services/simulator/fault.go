package simulator

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Fault is a way in which an HTTP endpoint ([Graph] or [Login]) misbehaves.
// The zero value of every field means "as usual"; fields may be combined, e.g.
// a delayed 503. The fields from RejectToken on concern Graph only.
type Fault struct {
	// Answers is how many answers are spoilt: 0 counts as 1, a negative number
	// means all of them until Clear.
	Answers int `json:"answers"`
	// Skip lets that many answers pass first.
	Skip int `json:"skip"`
	// Match limits the fault to requests whose query (for Login: path)
	// contains this text.
	Match string `json:"match"`

	// Status with Body and Header is sent instead of an answer.
	Status int               `json:"status"`
	Body   string            `json:"body"`
	Header map[string]string `json:"header"`
	// Delay is waited before answering.
	Delay time.Duration `json:"delay"`
	// Stall sends nothing until the client gives up or the server closes.
	Stall bool `json:"stall"`
	// Reset breaks the connection with a TCP reset instead of answering.
	Reset bool `json:"reset"`
	// Cut sends only that many bytes of the body under its full
	// Content-Length, then closes the connection.
	Cut int `json:"cut"`

	// RejectToken answers a request with a skip token as if the token were
	// not valid.
	RejectToken bool `json:"reject_token"`
	// ExtraTotal is added to totalRecords: rows are announced that never come.
	ExtraTotal int `json:"extra_total"`
	// Truncated says resultTruncated "true" and gives no skip token.
	Truncated bool `json:"truncated"`
	// Omit leaves out the page's last rows; the next page goes on as if they
	// had been sent.
	Omit int `json:"omit"`
	// Repeat sends the last rows of the page before once more, ahead of the
	// page's own.
	Repeat int `json:"repeat"`
	// Extra rows are sent behind the page's own.
	Extra []Row `json:"-"`
}

// UnmarshalJSON reads the fields by their JSON names, delay as a text like
// "1.5s".
func (f *Fault) UnmarshalJSON(b []byte) error {
	type plain Fault
	aux := struct {
		*plain
		Delay span `json:"delay"`
	}{plain: (*plain)(f)}
	if err := decodeStrict(b, &aux); err != nil {
		return err
	}
	f.Delay = time.Duration(aux.Delay)
	return nil
}

// span is a duration that is written as text in JSON.
type span time.Duration

func (s *span) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	*s = span(d)
	return err
}

// Unauthorized is ARM's plain 401. The SDK does not fetch a new token for it.
func Unauthorized() Fault {
	return Fault{Status: http.StatusUnauthorized, Body: armError("InvalidAuthenticationToken", "The access token is invalid.")}
}

// ClaimsChallenge is a 401 that asks for a token with more claims
// (continuous access evaluation). The SDK fetches one and repeats the request.
func ClaimsChallenge() Fault {
	return Fault{
		Status: http.StatusUnauthorized,
		Header: map[string]string{"WWW-Authenticate": `Bearer authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", ` +
			`error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ=="`},
		Body: armError("InvalidAuthenticationToken", "The access token has been revoked."),
	}
}

// Forbidden is the 403 of a principal that can read none of the scope.
func Forbidden() Fault {
	return Fault{Status: http.StatusForbidden, Body: graphError("AccessDenied", accessDenied)}
}

// TooManyRequests is a 429. retryAfter is the header's value in seconds, no
// header if negative.
func TooManyRequests(retryAfter int) Fault {
	f := Fault{Status: http.StatusTooManyRequests, Body: graphError("RateLimiting", rateLimiting)}
	if retryAfter >= 0 {
		f.Header = map[string]string{"Retry-After": itoa(retryAfter)}
	}
	return f
}

// Unavailable is a 5xx with ARM's body.
func Unavailable(status int) Fault {
	return Fault{Status: status, Body: armError("ServiceUnavailable", "The service is temporarily unavailable. Please retry.")}
}

// HTMLPage is what a proxy or a captive portal answers: 200 and a page.
func HTMLPage() Fault {
	return Fault{
		Status: http.StatusOK,
		Header: map[string]string{"Content-Type": "text/html; charset=utf-8"},
		Body:   "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n",
	}
}

// Garbage is a 200 whose body is neither JSON nor text.
func Garbage() Fault {
	return Fault{Status: http.StatusOK, Body: "\x00\xff{\"data\":[{\x1f\x8b]}", Header: map[string]string{"Content-Type": "application/json"}}
}

// faultQueue hands faults out in the order in which they were asked for.
type faultQueue struct {
	mu   sync.Mutex
	list []*Fault
}

func (q *faultQueue) add(f Fault) {
	if f.Answers == 0 {
		f.Answers = 1
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, &f)
}

func (q *faultQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = nil
}

// take returns the first fault that applies to a request with this text.
func (q *faultQueue) take(text string) Fault {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, f := range q.list {
		if !strings.Contains(text, f.Match) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Answers > 0 {
			if f.Answers--; f.Answers == 0 {
				q.list = append(q.list[:i:i], q.list[i+1:]...)
			}
		}
		return *f
	}
	return Fault{}
}

// before does what the fault does instead of, or ahead of, an answer. It
// returns false if the request needs no further answer.
func (f Fault) before(w http.ResponseWriter, r *http.Request) bool {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return false
		}
	}
	if f.Stall {
		<-r.Context().Done()
		return false
	}
	if f.Reset {
		resetConnection(w)
		return false
	}
	if f.Status != 0 {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		for name, value := range f.Header {
			w.Header().Set(name, value)
		}
		f.write(w, f.Status, []byte(f.Body))
		return false
	}
	return true
}

// write sends a body, whole or cut.
func (f Fault) write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", itoa(len(body)))
	w.WriteHeader(status)
	if f.Cut > 0 && f.Cut < len(body) {
		body = body[:f.Cut] // net/http closes the connection behind a short body
	}
	// A failed write means that the client is gone: nobody is left to tell.
	_, _ = w.Write(body)
}

func resetConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	abort(conn)
}

// abort closes with a TCP reset, also below TLS.
func abort(conn net.Conn) {
	raw := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn()
	}
	if l, ok := raw.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // without it the close below is merely an orderly one
	}
	_ = raw.Close()
}
