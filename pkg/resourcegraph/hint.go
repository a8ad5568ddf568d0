package resourcegraph

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"defenderiot/pkg/fault"
)

const hintThrottled = "The principal's quota of 15 requests per 5 s is used up: lower quota_share or give the collector a principal of its own."

// loginHints say what to do by AADSTS number. Microsoft may change the numbers, so they choose a hint
// and nothing else. (azidentity's TROUBLESHOOTING.md; "Microsoft Entra authentication and authorization
// error codes".)
var loginHints = map[int]string{
	7000215: "client_secret is wrong: use the secret's Value, not its Secret ID, and look for characters missing at the end.",
	7000222: "client_secret has expired: create a new one, or use a certificate.",
	700016:  "This tenant does not know the application: check that client_id and tenant_id belong together and that the application is consented to.",
	90002:   "There is no such tenant: check tenant_id, and that cloud is the cloud it lives in.",
	900023:  "tenant_id is neither a guid nor a domain.",
	700027:  "The signature was not accepted: upload the certificate to the app registration.",
	7000112: "The application is disabled: enable its service principal.",
	90014:   "A required field is missing: client_id is probably empty.",
	900382:  "The authority belongs to another cloud: check cloud and custom_cloud.authority_host.",
	90038:   "The tenant lives in a national cloud: set cloud to government or china.",
	90055:   "The tenant is throttled: wait; the collector tries again.",
	90006:   transientLogin,
	90012:   transientLogin,
	90024:   transientLogin,
	90033:   transientLogin,
	90090:   transientLogin,
	530032:  "A security policy of the tenant (conditional access) blocks the service principal: allow it there.",
	53003:   "Conditional access blocks the service principal: allow it there.",
	500011:  "The tenant does not know Resource Manager under that audience: check cloud and custom_cloud.resource_manager_audience.",
	700023:  "The assertion is for another address: check cloud and custom_cloud.authority_host.",
	700024:  "The assertion is outside its validity: check this machine's clock.",
	70021:   noFederation,
	700211:  noFederation,
	700212:  noFederation,
	700213:  noFederation,
}

// kindHints say what to do where Azure's answer does not tell.
var kindHints = map[string]string{
	KindManagedIdentity: "Assign a managed identity to this machine, App Service or Arc server, and name a user-assigned one under managed_identity.",
	KindDefault:         "Configure credentials, or give the default chain something to find: the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a managed identity, or az login.",
}

const (
	transientLogin = "A transient fault of the login endpoint; the collector tries again."
	noFederation   = "No federated credential of the application matches the token: check its issuer, subject and audience."
)

var aadsts = regexp.MustCompile(`AADSTS(\d{4,8})`)

// tokenFault names what the credential failed with.
func (c *Client) tokenFault(err *tokenError) error {
	var text string
	var status, code int // status 0: no answer
	var wait time.Duration
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err.error, &failed) && failed.RawResponse != nil {
		body, _ := runtime.Payload(failed.RawResponse)
		status = failed.RawResponse.StatusCode
		text, code = c.clean.login(status, body)
		wait, _ = retryDelay(failed.RawResponse.Header, time.Now())
	} else {
		text = c.clean.text(err.Error())
	}
	if m := aadsts.FindStringSubmatch(text); m != nil && code == 0 {
		code, _ = strconv.Atoi(m[1])
	}
	hint := loginHints[code]
	if hint == "" {
		hint = networkHint(err.error)
	}
	if hint == "" || c.kind == KindDefault && code == 0 {
		hint = cmp.Or(kindHints[c.kind], hint)
	}
	cause := &cleaned{text: strings.TrimRight(text, ". "), is: err.error}
	if status >= 500 || status == http.StatusTooManyRequests {
		hint = cmp.Or(hint, transientLogin)
	}
	if status == 0 || status >= 500 || status == http.StatusTooManyRequests || hint == transientLogin {
		cause.is = errors.Join(ErrTransient, err.error)
	}
	named := error(fault.Setup(codeToken, "Failed to fetch OAuth token from %s. Exception: %v.", c.login, cause).WithHint(hint))
	if wait > 0 {
		return fault.RetryAfter(named, wait)
	}
	return named
}

// login returns what an answer of the login endpoint says, and its AADSTS number or 0.
func (c cleaner) login(status int, body []byte) (string, int) {
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == "" && answer.Description == "" {
		return strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", status, c.excerpt(body))), 0
	}
	code := 0
	if len(answer.Codes) > 0 {
		code = answer.Codes[0]
	}
	text := answer.Description
	if text == "" {
		text = answer.Error
	}
	if code != 0 && !strings.Contains(text, "AADSTS") {
		text = fmt.Sprintf("AADSTS%d: %s", code, text)
	}
	return c.text(text), code
}

// apiHint says what to do about an answer that is no page.
func (c *Client) apiHint(e *ResponseError, q Query) string {
	switch {
	case e.Status == http.StatusUnauthorized:
		return "Azure refused a new token too: check that the audience fits the cloud and that this machine's clock is right."
	case e.Status == http.StatusForbidden:
		return "Grant the principal the role Security Reader on " + scopeOf(q) + "; a new assignment can take some minutes."
	case e.Status == http.StatusTooManyRequests:
		return hintThrottled
	case e.Detail == "TooManySubscriptionsUnderScope":
		return "The scope holds more subscriptions than one query may cover: list subscriptions or smaller management_groups."
	case e.kind == ErrPayloadTooLarge:
		return "The page is asked for again with fewer rows."
	case e.kind == ErrTokenRejected:
		return "The window is read again from its start."
	case e.Status == http.StatusNotFound, e.Status >= 300 && e.Status < 400:
		return "This address is not Resource Manager's: check cloud and custom_cloud.resource_manager_endpoint."
	case e.Status >= 500:
		return "A fault of Azure; the collector tries again at the next pull."
	}
	return ""
}

// scopeOf names the scope of a query, a long one by its beginning.
func scopeOf(q Query) string {
	kind, names := "subscription", q.Subscriptions
	if len(names) == 0 {
		kind, names = "management group", q.ManagementGroups
	}
	if len(names) == 0 {
		return "the subscriptions whose alerts it shall read (it can read none)"
	}
	const shown = 5
	if len(names) > 1 {
		kind += "s"
	}
	text := kind + " " + strings.Join(names[:min(len(names), shown)], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return text
}

// networkHint says what to do about a connection that did not come about; "" where nothing is known.
func networkHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var dns *net.DNSError
	var timeout net.Error
	text := err.Error() // the login library flattens some of its causes into text
	switch {
	case errors.As(err, &unknown), strings.Contains(text, "certificate signed by unknown authority"):
		return "The endpoint's certificate comes from an authority that this machine does not trust: set custom_cloud.ca_file, also for a proxy that opens TLS."
	case errors.As(err, &name):
		return "The certificate belongs to another host: check the addresses under custom_cloud and the proxy."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "The endpoint's certificate has expired or this machine's clock is wrong."
	case errors.As(err, &verify):
		return "The endpoint's certificate is not valid."
	case errors.As(err, &dns), strings.Contains(text, "no such host"):
		return "The host name does not resolve: check DNS, the proxy (HTTPS_PROXY) and the cloud."
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "The endpoint did not answer in time; the collector tries again."
	case strings.Contains(text, "connection refused"):
		return "Nothing listens there: check the proxy (HTTPS_PROXY), the firewall and the cloud's addresses."
	}
	return ""
}
