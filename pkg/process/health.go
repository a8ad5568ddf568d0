package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
)

// healthLimit bounds the whole question.
const healthLimit = 5 * time.Second

const healthUsage = "ask the program that runs with this configuration whether it is well, and exit: 0 yes, 1 no, with the reason; --health=ready also asks whether the bus, Azure and Devo can be reached"

// The values of the flag --health. Alive asks /healthz, which is what a container's health check needs: what
// acts on such a check restarts the container, and no restart brings an absent Azure, Devo or bus back. Ready
// asks /readyz.
const (
	HealthAlive = "alive"
	HealthReady = "ready"
)

// HealthFlag adds the flag --health, whose value is one of the Health constants, or "" when it is not given.
func HealthFlag(of *cobra.Command, to *string) {
	flags := of.Flags()
	flags.StringVar(to, "health", "", healthUsage)
	flags.Lookup("health").NoOptDefVal = HealthAlive
}

// Health asks the program that runs with the same configuration on this machine, over telemetry.listen. kind
// is one of the Health constants. nil: it answered 200. Else the error says why not, with the program's own
// words where it gave some; the caller prints it and exits with 1 (255 if the configuration is wrong). It
// takes at most 5 s.
func Health(ctx context.Context, o config.Options, kind string) error {
	page, ok := map[string]string{HealthAlive: "/healthz", HealthReady: "/readyz"}[kind]
	if !ok {
		return fmt.Errorf("--health=%s is not allowed; allowed: %s, %s", kind, HealthAlive, HealthReady)
	}
	c, _, err := config.Load(o)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.Telemetry.Listen)
	if err == nil && port == "0" {
		err = errors.New("its port is any free one")
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("telemetry.listen, %s, does not say where to ask: %w", c.Telemetry.Listen, err), "set telemetry.listen to a fixed port, such as 127.0.0.1:8080")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	url := "http://" + net.JoinHostPort(host, port) + page
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// The program is on this machine: no proxy of the environment may answer for it.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end or given up
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, response.Status, strings.Join(strings.Split(strings.TrimSpace(string(body)), "\n"), "; "))
	}
	return nil
}
