package process

import (
	"context"
	"io"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/internalevent"
	"defenderiot/pkg/telemetry"
)

// tellTime bounds how long an error that ends the start holds the program up.
const tellTime = 5 * time.Second

// Refused tells the errors of type InitVariablesError in err's tree where people look for errors by type and code:
// in the log and in devo.collectors.out, to each output that gets the collector's own log. c and err are what
// [config.Load] returned; with a nil c, and without such an error, it does nothing. No bus is there yet, so the
// outputs are connected to directly, for 5 s at most; one that cannot be told is a warning. The caller still prints
// err and exits with its code.
func Refused(ctx context.Context, c *config.Config, err error, logOutput io.Writer) {
	named := refusals(err)
	if c == nil || len(named) == 0 {
		return
	}
	t, err := telemetry.New(ctx, telemetry.Settings{LogFormat: c.Telemetry.LogFormat, Level: c.Level(), LogOutput: logOutput, Copy: true})
	if err != nil {
		return // the caller's error says more
	}
	defer t.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was traced
	logger := telemetry.WithThread(t.Logger, InputProcess, mainThread)
	for _, e := range named {
		logger.Error(e.Error(), telemetry.Fields("type", e.Type, "code", e.Code), "hint", e.Hint)
	}
	endpoints := make(map[string]devo.Endpoint)
	for name, o := range c.Outputs {
		if c.SendsInternal(o) {
			endpoints[name] = Endpoint(c, o)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	if err := internalevent.Tell(ctx, internalevent.Of(c), t.Copies.Take(len(named)), endpoints); err != nil {
		logger.Warn("the error above is not in devo.collectors.out", "reason", err)
	}
}

// refusals are the errors of a start time in err's tree.
func refusals(err error) (found []*fault.Error) {
	switch e := err.(type) {
	case *fault.Error:
		if e.Type == fault.TypeInitVariables {
			found = append(found, e)
		}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			found = append(found, refusals(err)...)
		}
	}
	return found
}
