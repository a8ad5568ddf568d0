package resourcegraph

import (
	"context"
	"log/slog"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// tokenError marks what the credential failed with, so that it is told from an answer of Resource
// Graph after the pipeline has wrapped it.
type tokenError struct{ error }

func (e *tokenError) Unwrap() error { return e.error }

// NonRetriable tells the SDK's pipeline not to try again: the credential has its own retries.
func (e *tokenError) NonRetriable() {}

// source is where a credential comes from.
type source struct {
	read func() (material, error)
	open func(material) (opened, error)
	// shared: MSAL keeps the tokens of managed identities for the whole process, so a new object alone
	// would get the old token.
	shared bool
	log    *slog.Logger
	clean  cleaner
}

// make reads what the credential is made of and makes it.
func (s source) make() (opened, [32]byte, error) {
	m, err := s.read()
	if err != nil {
		return opened{}, m.print, err
	}
	s.clean.know(m.secret, m.password)
	cred, err := s.open(m)
	return cred, m.print, err
}

// renewable is a credential that can be replaced under the pipeline, for two reasons. What it is made of may
// have been replaced: that is looked at before each token. And a token may have been answered with 401:
// the SDK forgets that one, but MSAL's cache inside the credential object keeps handing it out until it
// expires; only a new object asks the login endpoint again. Safe for concurrent use.
type renewable struct {
	source

	mu      sync.Mutex
	current opened
	print   [32]byte // of the material of current
	looked  [32]byte // of the material last looked at, good or not
	age     int      // how often it was replaced after a 401
	anew    bool     // the next token must not come from a cache
	blamed  string   // what was wrong with the material, already logged
}

func newRenewable(s source) (*renewable, error) {
	first, print, err := s.make()
	if err != nil {
		return nil, err
	}
	return &renewable{source: s, current: first, print: print, looked: print}, nil
}

// GetToken implements azcore.TokenCredential.
func (r *renewable) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	r.mu.Lock()
	r.follow()
	cred := r.current
	if r.anew && r.shared && o.Claims == "" {
		o.Claims = "{}" // a managed identity's endpoint is not sent it; the cache is passed by
	}
	r.mu.Unlock()
	token, err := cred.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, &tokenError{err}
	}
	r.mu.Lock()
	r.anew = false
	r.mu.Unlock()
	return token, nil
}

// follow replaces the credential if what it is made of has changed. Where the new material cannot be used,
// such as a file that is just being written, the old one stays in use.
func (r *renewable) follow() {
	m, err := r.read()
	if err == nil {
		r.looked = m.print
	}
	if err == nil && m.print == r.print {
		r.blamed = ""
		return
	}
	r.clean.know(m.secret, m.password)
	var next opened
	if err == nil {
		next, err = r.open(m)
	}
	if err != nil {
		if text := r.clean.text(err.Error()); text != r.blamed {
			r.blamed = text
			r.log.Warn("the credential's new secret or file cannot be used; the one before stays in use", "error", text)
		}
		return
	}
	r.current, r.print, r.blamed = next, m.print, ""
	r.log.Info("the credential has changed; the next token is asked for with the new one", "identity", next.name)
}

// renewed reports whether the material is another one than the last token was asked for with, or would have been had
// it been usable. Material that cannot be read is none.
func (r *renewable) renewed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.read()
	return err == nil && m.print != r.looked
}

// identity is what the credential is called; of a chain also the member that gave a token.
func (r *renewable) identity() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.current.TokenCredential.(*chain); ok {
		if member := c.used(); member != "" {
			return r.current.name + ": " + member
		}
	}
	return r.current.name
}

func (r *renewable) generation() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.age
}

// renew replaces the credential unless another caller did so since generation seen.
func (r *renewable) renew(seen int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.age != seen {
		return nil
	}
	next, print, err := r.make()
	if err != nil {
		return &tokenError{err}
	}
	if c, ok := r.current.TokenCredential.(*chain); ok {
		r.shared = c.used() == "ManagedIdentityCredential"
	}
	r.current, r.print, r.looked, r.age, r.anew = next, print, print, r.age+1, true
	return nil
}
