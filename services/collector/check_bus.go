package collector

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/certificate"
	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
)

// busTimeout bounds each part of the check of the bus.
const busTimeout = 10 * time.Second

// checkBus connects to the server of bus.url and says how; the server's rights for the configured user are compared
// with what this version needs, and what `collector provision` makes is looked for. It changes nothing.
func checkBus(ctx context.Context, c *config.Config) (detail string, warnings []string, err error) {
	b, err := process.Connect(c, process.NewInstance(), slog.New(slog.DiscardHandler))
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	if err := connected(ctx, b); err != nil {
		return "", nil, err
	}
	if files, err := b.Validities(time.Now()); err == nil {
		warnings = certificate.Notices(files, time.Now())
	}
	user, restricted, err := b.Rights(ctx)
	if err != nil {
		return "", warnings, err
	}
	if missing := b.Missing(ctx, process.Topology(c)); missing != "" {
		return "", warnings, fault.WithHint(fmt.Errorf("not there: %s", missing), "run `collector provision` with this configuration")
	}
	rights := "which may do everything"
	if restricted {
		rights = "with the rights that this version needs"
	}
	if user == "" {
		user = "without a user"
	} else {
		user = "as " + user
	}
	return fmt.Sprintf("connected to %s (nats-server %s, %s) %s, %s; everything is provisioned",
		b.Conn().ConnectedUrlRedacted(), b.Conn().ConnectedServerVersion(), transport(b.Conn()), user, rights), warnings, nil
}

// connected waits for the connection, and says why there is none.
func connected(ctx context.Context, b *bus.Bus) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	for {
		err := b.Connected()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if fault.Hint(err) == "" {
				err = fault.WithHint(err, "is the nats-server of bus.url up, and does nothing between here and there hold the connection up?")
			}
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func transport(conn *nats.Conn) string {
	state, err := conn.TLSConnectionState()
	if err != nil {
		return "without TLS"
	}
	return tls.VersionName(state.Version)
}
