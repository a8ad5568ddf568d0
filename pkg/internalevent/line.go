package internalevent

import (
	"strings"

	"defenderiot/pkg/telemetry"
)

const (
	lineTag  = "devo.collectors.out."
	lineTime = "2006-01-02T15:04:05.000000Z"
)

// line is the body of a log line; names and order are those that people search by.
type line struct {
	Msg              string  `json:"msg"`
	Time             string  `json:"time"`
	Level            string  `json:"level"`
	CollectorName    string  `json:"collector_name"`
	CollectorVersion string  `json:"collector_version"`
	CollectorImage   *string `json:"collector_image"`
	InputName        string  `json:"input_name,omitempty"`
	ServiceName      string  `json:"service_name,omitempty"`
	ModuleName       string  `json:"module_name,omitempty"`
	SharedDomain     bool    `json:"shared_domain,omitempty"`
}

// Line is the frame of a log line, with the tag devo.collectors.out.<local|global>.<level>.
func (c Collector) Line(from telemetry.Copy) ([]byte, error) {
	domain := "local."
	if from.Shared {
		domain = "global."
	}
	body := line{
		Msg: from.Text, Time: from.Time.UTC().Format(lineTime), Level: from.Level,
		CollectorName: c.Name, CollectorVersion: c.Version, CollectorImage: c.image(), SharedDomain: from.Shared,
	}
	if from.Process == "InputProcess" {
		body.InputName, body.ServiceName, body.ModuleName = origin(from.Thread)
	}
	return c.frame(from.Time, lineTag+domain+from.Level, body)
}

// origin reads the name of a thread of the InputProcess:
//
//	InputThread(input,id)
//	ServiceThread(input,id,service,predefined)
//	IotPuller(input,id,service,predefined)           the module IotPuller
//	IotSetup(collector,input#id,service#predefined)  the module IotSetup
//
// What is none of these has no origin.
func origin(thread string) (input, service, module string) {
	name, rest, ok := strings.Cut(thread, "(")
	rest, closed := strings.CutSuffix(rest, ")")
	if !ok || !closed {
		return "", "", ""
	}
	fields := strings.Split(rest, ",")
	switch {
	case len(fields) == 2 && name == "InputThread":
		return fields[0], "", ""
	case len(fields) == 4 && name == "ServiceThread":
		return fields[0], fields[2], ""
	case len(fields) == 4:
		return fields[0], fields[2], name
	case len(fields) == 3:
		input, _, ok1 := strings.Cut(fields[1], "#")
		service, _, ok2 := strings.Cut(fields[2], "#")
		if ok1 && ok2 {
			return input, service, name
		}
	}
	return "", "", ""
}
