package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/metric/noop"

	"defenderiot/pkg/certificate"
	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/process"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/services/fetcher"
)

const (
	stepTimeout = 90 * time.Second
	// refusalTime is how long a new connection to an output is watched: under TLS 1.3 a refused client
	// certificate shows only after the handshake.
	refusalTime = time.Second
)

// Step is one line of a check.
type Step struct {
	Name   string `json:"step"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
	// Warnings are what works today and will not for ever.
	Warnings []string `json:"warnings,omitempty"`
}

func (a *app) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "validates the configuration, asks Azure for a token and an alert, connects to each output and to the bus", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// check does every step, also after one has failed, and returns the first failure.
func (a *app) check(ctx context.Context, asJSON bool) error {
	c, warnings, err := a.load()
	if err != nil {
		return err
	}
	var steps []Step
	var first error
	say := func(name, detail string, err error) {
		s := Step{Name: name, Passed: err == nil, Detail: detail}
		if err != nil {
			s.Detail, s.Hint = err.Error(), fault.Hint(err)
			if first == nil {
				first = err
			}
		}
		steps = append(steps, s)
		if asJSON {
			return
		}
		if s.Passed {
			fmt.Fprintf(a.stdout, "ok      %s: %s\n", s.Name, printable(s.Detail))
		} else {
			fmt.Fprintf(a.stdout, "FAILED  %s: %s\n", s.Name, printable(s.Detail))
			if s.Hint != "" {
				fmt.Fprintf(a.stdout, "        hint: %s\n", printable(s.Hint))
			}
		}
	}
	warn := func(warnings []string) {
		steps[len(steps)-1].Warnings = warnings
		for _, w := range warnings {
			if !asJSON {
				fmt.Fprintf(a.stdout, "        warning: %s\n", printable(w))
			}
		}
	}
	say("configuration", c.File(), nil)
	for _, w := range warnings {
		if !asJSON {
			fmt.Fprintf(a.stdout, "        warning: %s\n", printable(fmt.Sprint(w)))
		}
	}
	for _, name := range fetcher.Enabled(c) {
		checkInput(ctx, c, name, say, warn)
	}
	for _, name := range keys(c.Outputs) {
		detail, err := checkOutput(ctx, c, c.Outputs[name])
		say("output "+name, detail, err)
		warn(expiring(c, c.Outputs[name], time.Now()))
	}
	if !c.Bus.IsEmbedded() {
		detail, warnings, err := checkBus(ctx, c)
		say("bus", detail, err)
		warn(warnings)
	}
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(struct {
			Passed bool   `json:"passed"`
			Steps  []Step `json:"steps"`
		}{first == nil, steps}); err != nil {
			return err
		}
	}
	if first != nil {
		return &checkError{first}
	}
	return nil
}

// checkError prints as the failure itself and exits with the code of a failed check.
type checkError struct{ error }

func (e *checkError) Error() string { return printable(e.error.Error()) }

func (e *checkError) Unwrap() []error { return []error{e.error, process.ErrCheckFailed} }

func checkInput(ctx context.Context, c *config.Config, name string, say func(name, detail string, err error), warn func([]string)) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	client, err := fetcher.Client(c, name, nil, noop.Meter{})
	if err != nil {
		say("input "+name, "", err)
		return
	}
	defer client.Close()
	err = client.Token(ctx)
	say("token for "+name, client.Identity(), err)
	if files, unreadable := client.Validities(time.Now()); unreadable == nil { // else the token has failed
		warn(certificate.Notices(files, time.Now()))
	}
	if err != nil {
		return
	}
	alerts := c.Inputs[name].Services.IoTSecurityAlerts
	page, err := client.Page(ctx, resourcegraph.Query{
		Text:          resourcegraph.WindowQuery(time.Now().Add(-90*24*time.Hour), time.Time{}),
		Subscriptions: firstBatch(alerts.Subscriptions), ManagementGroups: alerts.ManagementGroups, Top: 1,
	})
	if err != nil {
		say("test fetch of "+name, "", fetcher.NotPullable(client.Endpoint(), err))
		return
	}
	readable, err := client.Subscriptions(ctx, alerts.Subscriptions, alerts.ManagementGroups)
	if err != nil {
		say("scope of "+name, "", err)
		return
	}
	say("test fetch of "+name, fmt.Sprintf("source is pullable, %d alerts in 90 days", page.Total), nil)
	if missing := len(alerts.Subscriptions) - len(readable); missing > 0 {
		say("scope of "+name, "", fault.WithHint(fmt.Errorf("%d of the %d configured subscriptions cannot be read, so their alerts would be missing silently", missing, len(alerts.Subscriptions)),
			"give the application the role Security Reader on each of the configured subscriptions"))
		return
	}
	say("scope of "+name, fmt.Sprintf("%d subscriptions can be read", len(readable)), nil)
}

func firstBatch(subscriptions []string) []string {
	return subscriptions[:min(len(subscriptions), resourcegraph.MaxSubscriptions)]
}

// expiring names the output's certificates that end soon, with what to do. Files that cannot be read are
// what the connection fails with.
func expiring(c *config.Config, o config.Output, now time.Time) []string {
	if o.Transport() == config.TransportConsole {
		return nil
	}
	files, err := process.Endpoint(c, o).Validities(now)
	if err != nil {
		return nil
	}
	return certificate.Notices(files, now)
}

func checkOutput(ctx context.Context, c *config.Config, o config.Output) (string, error) {
	if o.Transport() == config.TransportConsole {
		if !o.Prints() {
			return "prints nothing: its destination is none of standard, console and stdout", nil
		}
		return "writes to this process's stdout", nil
	}
	endpoint := process.Endpoint(c, o)
	conn, err := devo.Dial(ctx, endpoint)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // the check is over
	select {
	case <-conn.Gone():
		if err := conn.Err(); err != nil {
			return "", err
		}
		return "", errors.New("the endpoint closed the connection at once")
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(refusalTime):
	}
	answer, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	proof, err := conn.HalfClose(answer)
	switch {
	case proof.Delivered():
		return fmt.Sprintf("connected to %s, which answers half-closes: delivery can be proved", endpoint), nil
	case proof == devo.Unanswered:
		return fmt.Sprintf("connected to %s, which does not answer half-closes: delivery will be unproved", endpoint), nil
	}
	return "", err
}
