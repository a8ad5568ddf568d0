// Package internalevent is what the collector tells Devo about itself: copies of its log lines and the metric
// message, as frames like those of alerts, and the goroutine that brings the lines onto the bus.
//
//	log line ──> telemetry.Copies (memory, 1,000 lines) ──> Publisher ──> INTERNAL (32 MiB, 7 days) ──> sender
//
// Everything on that way is bounded and drops its oldest, so it takes nothing from alerts. A line is sent at
// least once; it is lost when a bound is reached, with a process that dies before the line is stored, and in
// Devo's own buffers, because the sender takes the kernel's acknowledgement for enough.
package internalevent

import (
	"bytes"
	"encoding/json"
	"os"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/devo"
	"defenderiot/pkg/telemetry"
)

// imageVariable names the container image that runs, if its builder says so.
const imageVariable = "COLLECTOR_IMAGE"

// Collector is who speaks. It is a plain value.
type Collector struct {
	ID      string // globals.id
	Name    string // globals.name
	Version string
	Image   string // empty: null
	Host    string // of the frames
}

// Of is the collector that c configures, on this machine.
func Of(c *config.Config) Collector {
	version, _, _ := telemetry.BuildVersion()
	host, err := os.Hostname()
	if err != nil || (&devo.Header{Host: host, Tag: "x"}).Validate() != nil {
		host = "unknown" // the fetcher says what is wrong with it
	}
	return Collector{ID: c.Globals.ID, Name: c.Globals.Name, Version: version, Image: os.Getenv(imageVariable), Host: host}
}

func (c Collector) image() *string {
	if c.Image == "" {
		return nil
	}
	return &c.Image
}

// frame is body as one frame. The error cannot be mended by trying again.
func (c Collector) frame(at time.Time, tag string, body any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, err
	}
	return devo.AppendFrame(nil, devo.Header{Time: at, Host: c.Host, Tag: tag}, b.Bytes())
}
