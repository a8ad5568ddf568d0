package proto

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PersistenceVersion is the version of [Checkpoint].
const PersistenceVersion = 1

// MaxLastIDs bounds Checkpoint.LastIDs; dedup does not depend on them.
const MaxLastIDs = 1000

// Checkpoint is the fetch position of a source, JSON in the checkpoints bucket under the names that
// people know. It is moved by compare-and-set on the key's revision only, and never past a row that RAW
// has not acknowledged.
type Checkpoint struct {
	PersistenceVersion int `json:"@persistence_version"`
	// StartTime is the configured start as an instant; absent when the setting is absent.
	StartTime *time.Time `json:"start_time_in_utc"`
	// LastEventTime: everything that started before it has been read once. Never below the floor.
	LastEventTime time.Time `json:"last_event_time_in_utc"`
	// LastIDs are ids seen at LastEventTime, at most MaxLastIDs.
	LastIDs []string `json:"last_ids"`
	// SkipToken is always null: tokens are not kept over restarts.
	SkipToken *string `json:"skip_token"`
	// Generation counts start times: a changed one sends again, under a new generation.
	Generation uint64 `json:"generation"`
	// Floor is the lowest instant that queries of this generation reach: the start time, or a day before
	// the first start where none is configured.
	Floor time.Time `json:"floor_in_utc"`
	// Deduplication is the mode the claims were made in.
	Deduplication string `json:"deduplication,omitempty"`
	// Replaced are earlier generations whose claims still wait to be purged.
	Replaced []ReplacedGeneration `json:"replaced_generations,omitempty"`
	// Subscriptions are the readable ones that were seen; one that is new here is back-filled.
	Subscriptions []string `json:"subscriptions_seen,omitempty"`
	// Rescan are windows that came back short and are read again.
	Rescan []Window `json:"rescan,omitempty"`
	// SweptAt is the moment of the day to which the last sweep belongs, or before the first one the last such moment
	// before this generation began. The next is due a day later, however often the program restarts. Absent, as in
	// records of programs that did not know it: a sweep is due.
	SweptAt *time.Time `json:"swept_at,omitempty"`
	// Claiming is there while what was sent before is still being claimed without sending; absent, the
	// source is in its ordinary phase. Readers that do not know it ignore it.
	Claiming *Claiming `json:"claiming,omitempty"`
}

// Claiming is the first phase of a generation that must not send everything: the fetcher reads from the
// floor to Before and claims what was sent already. It reads nothing else until that is done.
type Claiming struct {
	// Before is the instant up to which rows count as old.
	Before time.Time `json:"before"`
	// Through: everything that starts before it has been claimed. The phase goes on from here.
	Through time.Time `json:"through"`
	// KnownIn is the generation whose claims say what was sent: other rows are sent as they come. 0: every
	// row that starts before Before was sent, by the collector whose state was imported.
	KnownIn uint64 `json:"known_in_generation,omitempty"`
	// IDs were sent although they do not start before Before; at most MaxClaimingIDs.
	IDs []string `json:"ids,omitempty"`
}

// MaxClaimingIDs bounds Claiming.IDs.
const MaxClaimingIDs = 10_000

// ReplacedGeneration is a generation that a new start time ended.
type ReplacedGeneration struct {
	Generation uint64    `json:"generation"`
	ReplacedAt time.Time `json:"replaced_at"`
}

// Window is a half-open interval of event times, [From, To).
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Encode returns the record as JSON.
func (c *Checkpoint) Encode() ([]byte, error) {
	if c.LastIDs == nil {
		c.LastIDs = []string{}
	}
	return json.Marshal(c)
}

// DecodeCheckpoint reads a record. A corrupt one or one of a newer version is an error: it is never
// taken for "no record", which would begin from scratch without a word.
func DecodeCheckpoint(data []byte) (*Checkpoint, error) {
	// The version alone first: a newer one may well hold fields that this reader cannot parse.
	var version struct {
		PersistenceVersion int `json:"@persistence_version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("checkpoint record: %w: %w", ErrMalformed, err)
	}
	if version.PersistenceVersion > PersistenceVersion {
		return nil, fmt.Errorf("checkpoint record: %w: @persistence_version %d", ErrNewerMajor, version.PersistenceVersion)
	}
	data, err := raise(data, version.PersistenceVersion, upgrades[:])
	if err != nil {
		return nil, fmt.Errorf("checkpoint record: %w: %w", ErrMalformed, err)
	}
	c := &Checkpoint{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("checkpoint record: %w: %w", ErrMalformed, err)
	}
	switch {
	case c.PersistenceVersion < 1 || c.Generation < 1 || c.LastEventTime.IsZero():
		return nil, fmt.Errorf("checkpoint record: %w: @persistence_version, generation or last_event_time_in_utc is missing", ErrMalformed)
	}
	if c.Floor.IsZero() { // written by hand; without it queries would reach below the start
		c.Floor = c.LastEventTime
		if c.StartTime != nil {
			c.Floor = *c.StartTime
		}
	}
	return c, nil
}

// Claim is the value of a key in the hashes bucket: the RAW sequence that claimed it, decimal. A
// redelivery of that same sequence owns the claim and publishes again; any other sequence is a duplicate.
type Claim struct {
	RawSequence uint64
	// Silent: nothing is published under it, because the alert was sent before or its dead letter was dropped. The text ends in an s then.
	Silent bool
	// Released: what the sequence had was lost, so the next sighting of the alert takes the claim over. The text ends in an r.
	Released bool
	// Again: taken over from a released claim, so the alert may have been sent before. The text ends in an a.
	Again bool
}

// Encode returns the claim's text.
func (c Claim) Encode() []byte {
	text := strconv.AppendUint(nil, c.RawSequence, 10)
	switch {
	case c.Silent:
		return append(text, 's')
	case c.Released:
		return append(text, 'r')
	case c.Again:
		return append(text, 'a')
	}
	return text
}

// DecodeClaim reads a claim; an unreadable one is an error, which the caller must not take for "known".
func DecodeClaim(data []byte) (Claim, error) {
	text := strings.TrimRight(string(data), "sra")
	c := Claim{}
	switch string(data[len(text):]) {
	case "":
	case "s":
		c.Silent = true
	case "r":
		c.Released = true
	case "a":
		c.Again = true
	default:
		return Claim{}, fmt.Errorf("claim %.40q: %w", data, ErrMalformed)
	}
	var err error
	if c.RawSequence, err = strconv.ParseUint(text, 10, 64); err != nil {
		return Claim{}, fmt.Errorf("claim %.40q: %w", data, ErrMalformed)
	}
	return c, nil
}
