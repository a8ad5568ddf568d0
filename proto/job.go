package proto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// JobVersion is the version of [Job].
const JobVersion = 1

// Kinds of jobs.
const (
	// JobReplay sends alerts of UNIQUE to an output again.
	JobReplay = "replay"
	// JobDead sends the alerts in dead letters of stage sender to their output again.
	JobDead = "dead"
)

// States of a job. Only a running one is worked on; preparing is a job whose command is still making its
// consumer and its selection.
const (
	JobPreparing = "preparing"
	JobRunning   = "running"
	JobDone      = "done"
	JobCancelled = "cancelled"
)

// JobBy says which time of an alert a window is about.
const (
	JobByStart  = "start"  // when the alert started: the envelope's event time
	JobByStored = "stored" // when UNIQUE stored it
)

// Job is the record of one sending again to one output, JSON in the jobs bucket, changed by compare-and-set
// only. What is to be sent is a set of sequences, which lies beside it in Parts keys, written before the
// job runs and never changed: all senders, now and after any restart, send exactly what was counted.
type Job struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // lower-case letters, digits and '-'
	Kind    string `json:"kind"`
	Output  string `json:"output"`
	Stream  string `json:"stream"`
	// First and Last bound the selection; Selected counts it and Bytes are its frames.
	First    uint64 `json:"first_sequence"`
	Last     uint64 `json:"last_sequence"`
	Selected uint64 `json:"selected"`
	Bytes    uint64 `json:"bytes"`
	Parts    int    `json:"selection_parts"`
	// Rate bounds alerts a second over all senders; 0: none.
	Rate int `json:"rate"`
	// By, From, To and Where are what the job was asked for, to be shown.
	By    string    `json:"by,omitempty"`
	From  time.Time `json:"from,omitzero"`
	To    time.Time `json:"to,omitzero"`
	Where []string  `json:"where,omitempty"`

	State   string    `json:"state"`
	Created time.Time `json:"created"`
	// Owner names the command that prepares the job.
	Owner string    `json:"owner"`
	Ended time.Time `json:"ended,omitzero"`
	// Result is there when the job has ended; its ledger may be gone then.
	Result *JobResult `json:"result,omitempty"`
	// Swept: consumer, ledger and selection of an ended job are removed.
	Swept bool `json:"swept,omitempty"`
}

// JobResult is how a job ended.
type JobResult struct {
	Confirmed uint64 `json:"confirmed"`
	// Resent were sent by the job more than once, or may have been.
	Resent uint64 `json:"possibly_resent"`
	Dead   uint64 `json:"dead"`
	// Missing were no longer in the stream when their turn came.
	Missing uint64 `json:"missing"`
}

// Encode returns the record as JSON.
func (j *Job) Encode() ([]byte, error) { return json.Marshal(j) }

// DecodeJob reads a record; errors wrap [ErrMalformed] or [ErrNewerMajor], and say that nobody may work on
// the job.
func DecodeJob(data []byte) (*Job, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("job record: %w: %w", ErrMalformed, err)
	}
	if version.Version > JobVersion {
		return nil, fmt.Errorf("job record: %w: version %d", ErrNewerMajor, version.Version)
	}
	j := &Job{}
	if err := json.Unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("job record: %w: %w", ErrMalformed, err)
	}
	if j.Version < 1 || !jobID(j.ID) || j.Output == "" || j.Stream == "" || j.State == "" || j.Rate < 0 {
		return nil, fmt.Errorf("job record: %w: version, id, output, stream or state is missing", ErrMalformed)
	}
	return j, nil
}

// jobID keeps a damaged record from becoming a subject with a wildcard.
func jobID(id string) bool {
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != ""
}

// selectionPart is how many ranges one key holds: less than 1 MiB, which any server takes.
const selectionPart = 50_000

// EncodeSelection returns the values of a selection's keys, at least one.
func EncodeSelection(s *Sequences) ([][]byte, error) {
	var parts [][]byte
	for rest := s.ranges; len(rest) > 0 || len(parts) == 0; {
		n := min(len(rest), selectionPart)
		var b bytes.Buffer
		enc := msgpack.NewEncoder(&b)
		enc.UseCompactInts(true)
		part := Sequences{rest[:n]}
		if err := part.EncodeMsgpack(enc); err != nil {
			return nil, fmt.Errorf("encode selection: %w", err)
		}
		parts, rest = append(parts, b.Bytes()), rest[n:]
	}
	return parts, nil
}

// AddSelection adds one value of [EncodeSelection] to the set; an error wraps [ErrMalformed].
func (s *Sequences) AddSelection(part []byte) error {
	var more Sequences
	r := bytes.NewReader(part)
	if err := more.DecodeMsgpack(msgpack.NewDecoder(r)); err != nil {
		return fmt.Errorf("selection: %w: %w", ErrMalformed, err)
	}
	if r.Len() > 0 {
		return fmt.Errorf("selection: %w: bytes after the end", ErrMalformed)
	}
	s.AddSet(more)
	return nil
}

// JobKey is the key of a job's record in the jobs bucket.
func JobKey(id string) string { return "job." + id }

// JobSelectionKey is the key of one part of a job's selection.
func JobSelectionKey(id string, part int) string { return fmt.Sprintf("selection.%s.%d", id, part) }

// JobTurnKey is the key by which one sender at a time works on a job with a rate. It expires by itself.
func JobTurnKey(id string) string { return "turn." + id }

// JobConsumer is the durable consumer of a job on its stream.
func JobConsumer(id string) string { return "job-" + id }

// JobLedger is the name under which a job's delivery ledger lies among those of the outputs.
func JobLedger(id string) string { return "replay job " + id }
