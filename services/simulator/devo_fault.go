package simulator

import (
	"sync"
	"time"
)

// Ending is how a fault ends a connection.
type Ending string

// The endings.
const (
	GoOn Ending = "" // read on after the stall
	// Reset sends a TCP reset.
	Reset Ending = "reset"
	// CloseUnread waits until unread data is in the kernel, sends
	// close_notify as if all were well, and closes. The kernel turns that
	// close into a reset: the client's TLS layer sees an orderly end although
	// data was lost.
	CloseUnread Ending = "close-unread"
	// CloseOrderly sends close_notify and FIN without having been asked.
	CloseOrderly Ending = "close"
	// ShutUnread leaves what comes unread until the client has half-closed, and
	// then answers with a FIN without close_notify: what a program does that
	// is stopped (syslog-ng 3.38). The client's TCP has every byte
	// acknowledged and sees no reset, yet the rest of the data is lost.
	ShutUnread Ending = "shut-unread"
)

// DevoFault is a way in which the Devo endpoint treats a connection badly. The
// zero value of a field means "as usual"; fields may be combined.
type DevoFault struct {
	// Connections is how many of the coming connections are treated so: 0
	// counts as 1 (as none with Live), a negative number means all until
	// Clear.
	Connections int `json:"connections"`
	// Live treats the connections that are open now so, at once.
	Live bool `json:"live"`

	// Drop closes right after accepting, before any TLS.
	Drop bool `json:"drop"`
	// Refuse does not accept the client's certificate. With TLS 1.3 the
	// client has finished its handshake by then and learns it by reading.
	Refuse bool `json:"refuse"`

	// AfterFrames and AfterBytes delay Stall and End until so many whole
	// frames and (raw) bytes were read on the connection.
	AfterFrames int64 `json:"after_frames"`
	AfterBytes  int64 `json:"after_bytes"`
	// Stall stops reading for so long, once.
	Stall time.Duration `json:"stall"`
	// End ends the connection then.
	End Ending `json:"end"`

	// ThrottleBytes are read after each pause of ThrottleEvery.
	ThrottleBytes int           `json:"throttle_bytes"`
	ThrottleEvery time.Duration `json:"throttle_every"`

	// NoAnswer never answers the client's half-close; the connection stays
	// open until Clear, Away or Close, two minutes at most.
	NoAnswer bool `json:"no_answer"`
	// AnswerDelay answers it so much later.
	AnswerDelay time.Duration `json:"answer_delay"`

	// ReceiveBuffer sets SO_RCVBUF in bytes (the kernel doubles it).
	ReceiveBuffer int `json:"receive_buffer"`
}

// UnmarshalJSON reads the fields by their JSON names, durations as text like
// "3s".
func (f *DevoFault) UnmarshalJSON(b []byte) error {
	type plain DevoFault
	aux := struct {
		*plain
		Stall         span `json:"stall"`
		ThrottleEvery span `json:"throttle_every"`
		AnswerDelay   span `json:"answer_delay"`
	}{plain: (*plain)(f)}
	if err := decodeStrict(b, &aux); err != nil {
		return err
	}
	f.Stall, f.ThrottleEvery = time.Duration(aux.Stall), time.Duration(aux.ThrottleEvery)
	f.AnswerDelay = time.Duration(aux.AnswerDelay)
	return nil
}

// due tells whether the point of AfterFrames and AfterBytes is reached.
func (f *DevoFault) due(frames, bytes int64) bool {
	return (f.Stall > 0 || f.End != GoOn) && frames >= f.AfterFrames && bytes >= f.AfterBytes
}

// devoFaults hands faults to connections in the order they were asked for.
type devoFaults struct {
	mu   sync.Mutex
	list []*DevoFault
}

func (q *devoFaults) add(f DevoFault) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, &f)
}

func (q *devoFaults) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = nil
}

func (q *devoFaults) take() *DevoFault {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return nil
	}
	f := *q.list[0]
	if f.Connections > 0 {
		if q.list[0].Connections--; q.list[0].Connections == 0 {
			q.list = q.list[1:]
		}
	}
	return &f
}
