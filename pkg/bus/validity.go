package bus

import (
	"fmt"
	"os"
	"time"

	"defenderiot/pkg/certificate"
)

const (
	remedyBusCA     = "put the authority's new certificate into bus.tls.ca beside the old one, and restart the programs (docs/privilege.md)"
	remedyBusCert   = "put a new certificate and key in their place; the next connection to the bus uses them (docs/privilege.md)"
	remedyBusServer = "give the nats-server a new certificate: deploy/nats/certificates.sh, then restart it (docs/privilege.md)"
)

// Validities tells when the certificates of the connection end: those of the files bus.tls names, read anew, and what
// the server has shown in the handshake. There are none without TLS; the server's is missing while there is no
// connection. An error names the file that cannot be read.
func (b *Bus) Validities(time.Time) ([]certificate.Validity, error) {
	var out []certificate.Validity
	for _, f := range []struct{ kind, path, remedy string }{{"ca", b.ca, remedyBusCA}, {"cert", b.cert, remedyBusCert}} {
		if f.path == "" {
			continue
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("bus.tls.%s: %w", f.kind, err)
		}
		certs, err := certificate.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("bus.tls.%s: %s: %w", f.kind, f.path, err)
		}
		out = append(out, certificate.Of(f.kind, f.path, certs, f.remedy))
	}
	if state, err := b.conn.TLSConnectionState(); err == nil && len(state.PeerCertificates) > 0 {
		out = append(out, certificate.Of(certificate.Server, b.conn.ConnectedAddr(), state.PeerCertificates, remedyBusServer))
	}
	return out, nil
}
