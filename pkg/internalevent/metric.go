package internalevent

import "time"

const metricTag = "devo.collector.metric.message_sent"

// Sent is what an output has confirmed since a moment.
type Sent struct {
	Since    time.Time
	Messages int64
	Bytes    int64 // of the frames
}

// Metric is the frame of the metric message; at is its date.
func (c Collector) Metric(at time.Time, sent Sent) ([]byte, error) {
	type part struct {
		Counter int64 `json:"part_counter"`
		Bytes   int64 `json:"part_bytes"`
		Since   int64 `json:"since_ts"` // ms since the epoch
	}
	return c.frame(at, metricTag, struct {
		ID      string  `json:"col_id"`
		Name    string  `json:"col_name"`
		Version string  `json:"col_version"`
		Image   *string `json:"col_image"`
		Sent    part    `json:"msg_sent"`
	}{c.ID, c.Name, c.Version, c.image(), part{sent.Messages, sent.Bytes, sent.Since.UnixMilli()}})
}
