package resourcegraph

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// maxBody bounds an answer after decompression. Resource Graph itself stops at 16 MiB
// (ResponsePayloadTooLarge), so only something else in its place gets near.
const maxBody = 64 << 20

// errBodyTooLarge is what reading a body above the bound ends with.
var errBodyTooLarge = errors.New("the answer is larger than 64 MiB")

// network is how the SDK's clients reach the outside.
type network struct {
	login   policy.ClientOptions // for the login endpoint and Resource Manager
	local   policy.ClientOptions // for a managed identity's endpoint on this machine
	private bool                 // the authority is none of Microsoft's
	close   func()
}

// newNetwork makes the transport: bounded in time and size, no redirects.
func newNetwork(s Settings, conf cloud.Configuration, retry policy.RetryOptions, over http.RoundTripper) (network, error) {
	roots, err := s.Cloud.roots()
	if err != nil {
		return network{}, err
	}
	t := &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	if s.Transport != nil {
		s.Transport(t)
	}
	if over == nil {
		over = t
	}
	client := func(rt http.RoundTripper) *http.Client {
		return &http.Client{
			Transport: rt,
			Timeout:   s.Timeout,
			// A redirect would carry the query, and on the same host the token, to a place that
			// nobody configured; it becomes an error answer instead.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	options := policy.ClientOptions{
		Cloud:     conf,
		Retry:     retry,
		Telemetry: policy.TelemetryOptions{ApplicationID: s.UserAgent},
		Transport: client(bounded{over}),
	}
	// On Service Fabric the SDK takes a managed identity's transport only if it is an *http.Transport.
	near := t.Clone()
	near.DialContext = toPodIdentity(t.DialContext)
	local := options
	local.Transport = client(near)
	local.Retry.ShouldRetry = shouldRetryMetadata
	closeIdle := func() {
		t.CloseIdleConnections()
		near.CloseIdleConnections()
	}
	return network{login: options, local: local, private: s.Cloud.name() == CloudCustom, close: closeIdle}, nil
}

// proxy is that of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, but never for a link-local address: the metadata
// service belongs to this machine, and a proxy would answer for its own.
func proxy(req *http.Request) (*url.URL, error) {
	if ip := net.ParseIP(req.URL.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(req)
}

// metadataService is where the SDK looks for a virtual machine's identity.
const metadataService = "169.254.169.254:80"

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// toPodIdentity leads the metadata service's address to AZURE_POD_IDENTITY_AUTHORITY_HOST, an http address, if
// that is set: Azure's SDKs for other languages know it, the one for Go does not.
func toPodIdentity(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == metadataService {
			if u, err := url.Parse(os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")); err == nil && u.Scheme == "http" && u.Host != "" {
				if address = u.Host; u.Port() == "" {
					address = net.JoinHostPort(u.Hostname(), "80")
				}
			}
		}
		return dial(ctx, network, address)
	}
}

// bounded is a RoundTripper whose bodies end with errBodyTooLarge above maxBody.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil && resp.Body != nil {
		resp.Body = &boundedBody{resp.Body, maxBody}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errBodyTooLarge
	}
	return n, err
}

// shouldRetryMetadata adds what the metadata service answers while it starts or moves.
func shouldRetryMetadata(resp *http.Response, err error) bool {
	return err == nil && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone) || shouldRetry(resp, err)
}

// shouldRetry says what the SDK tries again at once: answers that Azure calls transient and broken
// connections. A try that ran into the deadline is not among them, or one call would take three
// deadlines; nor is what stays the same in a second's time, such as a certificate.
func shouldRetry(resp *http.Response, err error) bool {
	if err != nil {
		var timeout interface{ Timeout() bool }
		var cert *tls.CertificateVerificationError
		return !(errors.As(err, &timeout) && timeout.Timeout()) && !errors.As(err, &cert)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
