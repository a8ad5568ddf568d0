package sender

import (
	"io"
	"slices"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
)

// Configured gives the settings of all outputs of c in the order of their names; console is what the
// outputs console and stdout write to.
func Configured(c *config.Config, console io.Writer) []OutputSettings {
	var outputs []OutputSettings
	for name, o := range c.Outputs {
		s := OutputSettings{
			Name:         name,
			Connections:  o.Config.ConcurrentConnections,
			RotateEvents: o.Config.RotateAfterEvents,
			RotateAfter:  time.Duration(o.Config.RotateAfterInSeconds) * time.Second,
			Internal:     c.SendsInternal(o),

			StatisticsPeriod: time.Duration(o.Config.PeriodSenderStatsInSeconds) * time.Second,
			StatisticsBytes:  c.Telemetry.StatisticsFormat == config.StatisticsBytes,
		}
		if o.Transport() == config.TransportConsole {
			s.Console = console
			if !o.Prints() {
				s.Console = io.Discard
			}
			s.Connections = 1
		} else {
			s.Endpoint = process.Endpoint(c, o)
			s.Compression = compressionOf(o)
		}
		outputs = append(outputs, s)
	}
	slices.SortFunc(outputs, func(a, b OutputSettings) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return outputs
}
