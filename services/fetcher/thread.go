package fetcher

import (
	"fmt"

	"defenderiot/proto"
)

// pullerThread is what people find a source's pulls by in a log.
func pullerThread(s proto.Source) string {
	return fmt.Sprintf("IotPuller(%s,%s,%s,predefined)", s.Input, s.InputID, s.Service)
}

// setupThread is the same for its set-ups; collector is globals.name.
func setupThread(collector string, s proto.Source) string {
	return fmt.Sprintf("IotPullerSetup(%s,%s#%s,%s#predefined)", collector, s.Input, s.InputID, s.Service)
}

// sayInitialised tells, when the source is fetched first, what the configuration's reading has done and what begins now,
// in the lines that people know.
func (f *Fetcher) sayInitialised() {
	say := f.mainLogger.Info
	say(f.puller + " Starting the execution of init_variables()")
	say("Validating service metadata")
	say("Validating defined module definition")
	say("Validating common input config")
	say("Validating service input config")
	say("Running overriding rules")
	if f.service.Overridden {
		say(fmt.Sprintf("Overriding rule #1 - service key <override_tag> with value <%s> overrides definition key <tag> with value <%s> when the first is not <None>", f.service.Tag, defaultTag))
	}
	say("Validating the rate limiter config given by the user")
	if !f.service.Limited {
		say("<requests_limits> setting has not been defined. The generic settings will be used instead.")
	}
	say("Running custom validation rules")
	say(f.puller + " Finalizing the execution of init_variables()")
	say(fmt.Sprintf("InputThread(%s,%s) - Starting thread (execution_period=60s)", f.source.Input, f.source.InputID))
	say(fmt.Sprintf("ServiceThread(%s,%s,%s,predefined) - Starting thread (execution_period=60s)", f.source.Input, f.source.InputID, f.source.Service))
	say(setupThread(f.collector, f.source) + " -> Starting thread")
	say(f.puller + " - Starting thread")
}
