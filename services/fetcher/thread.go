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
