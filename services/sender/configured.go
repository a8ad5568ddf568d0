package sender

import (
	"io"
	"slices"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
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
			s.Connections = 1
		} else {
			s.Endpoint = Endpoint(c, o)
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

// Endpoint gives the endpoint of an output that is no console.
func Endpoint(c *config.Config, o config.Output) devo.Endpoint {
	e := devo.Endpoint{Kind: devo.TCP, Address: o.Config.Address, Port: o.Config.Port}
	if o.Transport() == config.TransportTLS {
		e.Kind = devo.TLS
		e.ServerName = o.Config.ServerName
		e.ChainFile, e.CertFile, e.KeyFile = c.CertPath(o.Config.Chain), c.CertPath(o.Config.Cert), c.CertPath(o.Config.Key)
		e.SkipVerification = !o.Config.VerifyCertificate
	}
	return e
}
