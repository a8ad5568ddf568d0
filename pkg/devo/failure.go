package devo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"defenderiot/pkg/fault"
)

// Reason says in one word why a connection could not be made, or why it ended. It is fit for a metric's
// label and for telling whether a failure is the same as the last one.
type Reason string

// The reasons.
const (
	Refused            Reason = "refused"             // nothing listens there
	NoSuchHost         Reason = "no_such_host"        // the name does not resolve
	Unreachable        Reason = "unreachable"         // no route
	TimedOut           Reason = "timeout"             // no answer in time
	UnknownAuthority   Reason = "unknown_authority"   // the endpoint's certificate is signed by nobody we know
	WrongName          Reason = "wrong_name"          // the endpoint's certificate is for another name
	ServerCertificate  Reason = "server_certificate"  // the endpoint's certificate is expired or otherwise invalid
	ClientCertificate  Reason = "client_certificate"  // the endpoint refused our certificate
	Protocol           Reason = "protocol"            // the other side does not speak (our) TLS
	ConnectionReset    Reason = "reset"               // the other side threw the connection away
	ClosedByPeer       Reason = "closed"              // the other side ended the connection before we did
	Unacknowledged     Reason = "unacknowledged"      // the other side ended without having taken every byte
	NoHalfClose        Reason = "no_half_close"       // this kind of connection cannot be half-closed
	BadSettings        Reason = "settings"            // the endpoint's settings cannot be used
	FileMissing        Reason = "file_missing"        // a certificate file does not exist
	FileUnreadable     Reason = "file_unreadable"     // a certificate file cannot be read
	FileInvalid        Reason = "file_invalid"        // a certificate file is no PEM or holds something else
	KeyMismatch        Reason = "key_mismatch"        // the key does not belong to the certificate
	CertificateExpired Reason = "certificate_expired" // our own certificate is outside its dates
	Other              Reason = "other"               // anything else
)

// Failure is an error of a connection in words an operator can act on. Its hint (fault.Hint) says what
// to do. It is immutable and safe for concurrent use. No Failure is permanent: the sender tries again.
type Failure struct {
	Reason Reason
	// Text is the failure in plain words, without the remedy.
	Text string
	// Err is what the system or the TLS library said; it may be nil.
	Err error
}

// Error returns the text and what lies behind it.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Text
	}
	return f.Text + " (" + f.Err.Error() + ")"
}

// Unwrap returns the error behind it.
func (f *Failure) Unwrap() error { return f.Err }

// failure makes a Failure with its hint.
func failure(r Reason, err error, hint, format string, args ...any) error {
	return fault.WithHint(&Failure{Reason: r, Text: fmt.Sprintf(format, args...), Err: err}, hint)
}

const hintRefusedSilently = "if this comes right after each connect, the endpoint may be refusing the client certificate without saying so: " +
	"check that cert and key are the ones of the Devo domain and not revoked"

// Classify returns err as a [*Failure] with a hint: one clear message for everything that dialling, the
// TLS handshake, reading or writing can give. A nil err stays nil, a classified one and context.Canceled
// stay as they are. [Dial] and [Conn] return classified errors already.
//
// A refused client certificate comes from the handshake under TLS 1.2. Under TLS 1.3 the handshake ends
// before the endpoint has looked at the certificate, and the refusal comes with the first read (RFC 8446
// section 4.4.2.4; golang/go#56371).
func Classify(err error) error {
	var done *Failure
	if err == nil || errors.As(err, &done) || errors.Is(err, context.Canceled) {
		return err
	}
	if f := classifyTLS(err); f != nil {
		return f
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return failure(NoSuchHost, err, "check the output's address for a typing error, and this machine's name service (/etc/resolv.conf)",
			"the host name %q does not exist", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failure(Refused, err, "check the output's address and port, and that the endpoint is up", "the connection was refused")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return failure(Unreachable, err, "check this machine's network, routes and firewall", "there is no route to the endpoint")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.ENOTCONN):
		return failure(ConnectionReset, err, hintRefusedSilently, "the endpoint reset the connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failure(ClosedByPeer, err, hintRefusedSilently, "the endpoint closed the connection")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT),
		errors.As(err, &timeout) && timeout.Timeout():
		return failure(TimedOut, err, "check that a firewall or proxy lets this machine reach the endpoint's address and port",
			"the endpoint did not answer in time")
	}
	return failure(Other, err, "check the network between this machine and the endpoint, and ask whoever runs the endpoint if it stays", "the connection failed")
}

// classifyTLS returns the Failure of a TLS or certificate error, or nil.
func classifyTLS(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		header    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return failure(UnknownAuthority, err, "put the CA that signed the endpoint's certificate into the output's chain file",
			"the endpoint's certificate is signed by an authority that neither the chain file nor this system knows")
	case errors.As(err, &name):
		return failure(WrongName, err, "set the output's address to a name in the endpoint's certificate, or server_name to that name; "+
			"verify_certificate: false switches the check off and with it the proof of who receives the events",
			"the endpoint's certificate is for another host name")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure(ServerCertificate, err, "check this machine's clock; if it is right, whoever runs the endpoint must renew its certificate",
			"the endpoint's certificate is expired or not yet valid (valid %s to %s)", date(invalid.Cert.NotBefore), date(invalid.Cert.NotAfter))
	case errors.As(err, &invalid):
		return failure(ServerCertificate, err, "whoever runs the endpoint must replace its certificate", "the endpoint's certificate is not valid")
	case errors.As(err, &header):
		return failure(Protocol, err, "check the port, and whether this output should be of a type without TLS", "the endpoint does not speak TLS")
	case errors.As(err, &op) && op.Op == "remote error" && op.Err != nil:
		return classifyAlert(op.Err.Error(), err)
	}
	return nil
}

// classifyAlert names the alert that the peer sent (RFC 8446 section 6.2). The alert's type is not
// exported by crypto/tls, its text is.
func classifyAlert(alert string, err error) error {
	const text = "the endpoint refused our client certificate"
	switch alert {
	case "tls: certificate required":
		return failure(ClientCertificate, err, "configure cert and key of the output: the endpoint wants a client certificate", text)
	case "tls: expired certificate":
		return failure(ClientCertificate, err, "download a new certificate for the Devo domain (Administration, Credentials, X.509) and replace cert and key; "+
			"if its dates are right, check the clocks", text)
	case "tls: revoked certificate":
		return failure(ClientCertificate, err, "the certificate was revoked: download a new one for the Devo domain and replace cert and key", text)
	case "tls: unknown certificate authority", "tls: bad certificate", "tls: unknown certificate", "tls: unsupported certificate",
		"tls: access denied", "tls: error decrypting message":
		return failure(ClientCertificate, err, "check that cert and key are the ones of the Devo domain and that the address is in the domain's region", text)
	case "tls: protocol version not supported", "tls: handshake failure", "tls: insufficient security level":
		return failure(Protocol, err, "the endpoint must offer TLS 1.2 or newer; some endpoints also answer so to a missing or foreign client certificate",
			"the endpoint refused the TLS handshake")
	}
	return failure(Other, err, "see the endpoint's own log", "the endpoint reported a TLS error")
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
