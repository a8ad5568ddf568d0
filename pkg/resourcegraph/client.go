package resourcegraph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resourcegraph/armresourcegraph"
	"go.opentelemetry.io/otel/metric"

	"defenderiot/pkg/fault"
)

// DefaultTimeout is the deadline of one request.
const DefaultTimeout = 60 * time.Second

// tries is how often a request is sent at most before its error goes to the caller.
const tries = 3

// Settings is what a [Client] is made from.
type Settings struct {
	Credential Credential
	Cloud      Cloud
	// QuotaShare is the part of the principal's 15 requests per 5 s that the client uses, above 0 up
	// to 1; the rest is left to the principal's other tools. At least one request per 5 s is sent.
	QuotaShare float64
	// Limits bound the client's requests, repeats among them, beside the quota: all of them hold. A nil one limits nothing.
	// Limiters that several clients share stand in the same order in all of them.
	Limits []*Limiter
	// UserAgent goes before the SDK's own, at most 24 characters.
	UserAgent string
	// Timeout is the deadline of one request with its whole answer, token requests among them; 0 means
	// [DefaultTimeout]. Waiting for the quota is not part of it, nor are the repeats.
	Timeout time.Duration
	// Logger takes what an operator acts on; nil discards it.
	Logger *slog.Logger
	// Meter makes the instruments; nil makes none.
	Meter metric.Meter
	// Transport may change the HTTP transport before its first use; nil leaves it as it is.
	Transport func(*http.Transport)
}

// Client asks Azure Resource Graph. It is safe for concurrent use; all callers share the credential's
// token and the quota.
type Client struct {
	graph      *armresourcegraph.Client
	credential *renewable
	origin     Credential
	brake      *brake
	principal  Principal
	kind       string
	endpoint   string
	login      string
	scope      string
	clean      cleaner
	close      func()
}

// New makes a client. It reads the files that the settings name and asks nothing of the network; an
// error is a configuration error.
func New(s Settings) (*Client, error) { return newClient(s, hooks{}) }

// hooks are the seams for tests.
type hooks struct {
	transport  http.RoundTripper      // instead of the network
	credential azcore.TokenCredential // instead of Settings.Credential
	retryDelay time.Duration          // instead of the SDK's 800 ms
}

func newClient(s Settings, h hooks) (*Client, error) {
	invalid := func(err error) error { return fault.Config(6, "%v", err) }
	if !(s.QuotaShare > 0 && s.QuotaShare <= 1) {
		return nil, invalid(fmt.Errorf("the quota share is %v; allowed is above 0 up to 1", s.QuotaShare))
	}
	if s.Timeout <= 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	conf, err := s.Cloud.configuration()
	if err != nil {
		return nil, invalid(err)
	}
	retry := policy.RetryOptions{MaxRetries: tries - 1, MaxRetryDelay: maxBlocked, RetryDelay: h.retryDelay, ShouldRetry: shouldRetry}
	net, err := newNetwork(s, conf, retry, h.transport)
	if err != nil {
		return nil, invalid(err)
	}
	meters, err := newMetrics(s.Meter)
	if err != nil {
		return nil, fmt.Errorf("resourcegraph: instruments: %w", err)
	}
	clean := newCleaner(s.Credential.ClientSecret, s.Credential.CertificatePassword)
	origin := source{
		read: s.Credential.material, log: s.Logger, clean: clean, shared: s.Credential.kind() == KindManagedIdentity,
		open: func(m material) (opened, error) { return s.Credential.open(m, net) },
	}
	if h.credential != nil {
		origin.read = func() (material, error) { return material{}, nil }
		origin.open = func(material) (opened, error) { return opened{h.credential, s.Credential.kind()}, nil }
	}
	cred, err := newRenewable(origin)
	if err != nil {
		hint := fault.Hint(err)
		named := fault.Config(codeSettings, "%s", clean.text(err.Error())).WithHint(hint)
		named.Cause = s.Credential.setting()
		return nil, named
	}
	b := newBrake(s.QuotaShare)
	options := &arm.ClientOptions{ClientOptions: net.login, DisableRPRegistration: true}
	options.PerCallPolicies = []policy.Policy{detach{}}
	options.PerRetryPolicies = []policy.Policy{&gate{limits: &limits{levels: s.Limits, log: s.Logger}, brake: b, metrics: meters, log: s.Logger}}
	graph, err := armresourcegraph.NewClient(cred, options)
	if err != nil {
		return nil, invalid(err)
	}
	manager := conf.Services[cloud.ResourceManager]
	return &Client{
		graph: graph, credential: cred, origin: s.Credential, brake: b, clean: clean, close: net.close,
		principal: s.Credential.principal(),
		kind:      s.Credential.kind(),
		endpoint:  manager.Endpoint,
		login:     s.Credential.endpoint(conf.ActiveDirectoryAuthorityHost),
		scope:     manager.Audience + "/.default",
	}, nil
}

// Close closes the idle connections. The client can be used after it.
func (c *Client) Close() { c.close() }

// Endpoint is the address of Resource Manager that the client asks, as error messages name it.
func (c *Client) Endpoint() string { return c.endpoint }

// Renewed reports whether what the credential is made of, a file or an environment file, has changed since the last token
// was asked for, so that an attempt may succeed that failed before. It reads those files and asks nobody.
func (c *Client) Renewed() bool { return c.credential.renewed() }

// Identity names who asks, such as "client certificate (thumbprint 0A…, expires 2027-01-31)". Of the default
// chain the member that gave the token is known once there was one: "default chain: AzureCLICredential".
func (c *Client) Identity() string { return c.credential.identity() }

// Quota returns what is known of the request quota.
func (c *Client) Quota() Quota { return c.brake.quota() }

// Token gets a token, or finds the one it has still good. An error is SetupError 101, with a hint where
// the reason is a known one, or the context's.
func (c *Client) Token(ctx context.Context) error {
	// The pipeline asks with EnableCAE too; without it MSAL would keep a second token.
	_, err := c.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}, EnableCAE: true})
	if err != nil {
		return c.explain(ctx, err, Query{})
	}
	return nil
}

// Page asks for one page. It waits for limits and quota, tries up to three times where Azure calls the failure
// transient, and once more with a new credential after a 401.
//
// Errors, each with a hint where something can be done: the context's own; SetupError 101;
// ApiError 401, 403, 429 and 498 and other statuses; PullError 301 and 302. errors.Is finds
// [ErrPayloadTooLarge] (ask for a smaller page), [ErrTokenRejected] (start the window again),
// [ErrTableMissing] (a configuration error), [ErrInvalidQuery] and [ErrLimited] (no failure: ask again later). An error that carries a wait
// (fault.Delay) makes every request before that useless. None of them says that the query has no rows.
func (c *Client) Page(ctx context.Context, q Query) (*Page, error) {
	request, err := q.request()
	if err != nil {
		return nil, err
	}
	age := c.credential.generation()
	a, err := c.send(ctx, request)
	var refused *azcore.ResponseError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusUnauthorized {
		if renewErr := c.credential.renew(age); renewErr != nil {
			return nil, c.explain(ctx, renewErr, q)
		}
		a, err = c.send(ctx, request)
	}
	if err != nil {
		return nil, c.explain(ctx, err, q)
	}
	received := time.Now()
	p, err := decode(a.body)
	if err != nil {
		return nil, c.unreadable(a.body, err)
	}
	p.Received = received
	p.Partial = strings.EqualFold(a.header.Get(headerLimitHit), "true")
	if date, err := http.ParseTime(a.header.Get("Date")); err == nil {
		p.Date = date.UTC()
	}
	return p, nil
}

// send returns the undecoded answer to one request.
func (c *Client) send(ctx context.Context, request armresourcegraph.QueryRequest) (*answer, error) {
	var a answer
	if _, err := c.graph.Resources(context.WithValue(ctx, answerKey{}, &a), request, nil); err != nil {
		return nil, err
	}
	return &a, nil
}

// request returns the SDK's form of the query.
func (q Query) request() (armresourcegraph.QueryRequest, error) {
	switch {
	case len(q.Subscriptions) > 0 && len(q.ManagementGroups) > 0:
		return armresourcegraph.QueryRequest{}, errors.New("resourcegraph: a query names subscriptions and management groups; only one of them is allowed")
	case len(q.Subscriptions) > MaxSubscriptions:
		return armresourcegraph.QueryRequest{}, fmt.Errorf("resourcegraph: a query names %d subscriptions; at most %d are allowed", len(q.Subscriptions), MaxSubscriptions)
	case q.Top < 0 || q.Top > MaxTop:
		return armresourcegraph.QueryRequest{}, fmt.Errorf("resourcegraph: a page of %d rows; allowed are 1 to %d", q.Top, MaxTop)
	}
	top := q.Top
	if top == 0 {
		top = MaxTop
	}
	r := armresourcegraph.QueryRequest{
		Query: to.Ptr(q.Text),
		Options: &armresourcegraph.QueryRequestOptions{
			ResultFormat: to.Ptr(armresourcegraph.ResultFormatObjectArray),
			Top:          to.Ptr(int32(top)),
		},
	}
	if q.SkipToken != "" {
		r.Options.SkipToken = to.Ptr(q.SkipToken)
	}
	if q.AllowPartialScopes {
		r.Options.AllowPartialScopes = to.Ptr(true)
	}
	if len(q.Subscriptions) > 0 {
		r.Subscriptions = to.SliceOfPtrs(q.Subscriptions...)
	}
	if len(q.ManagementGroups) > 0 {
		r.ManagementGroups = to.SliceOfPtrs(q.ManagementGroups...)
	}
	return r, nil
}
