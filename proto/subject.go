package proto

import (
	"fmt"
	"strconv"
	"strings"
)

// Streams.
const (
	StreamRaw    = "RAW"
	StreamUnique = "UNIQUE"
	StreamDead   = "DEAD"
	// StreamInternal holds the collector's own log lines on their way to Devo. It alone drops its oldest: no
	// alert depends on it.
	StreamInternal = "INTERNAL"
)

// Key-value buckets. A bucket is the stream KV_<bucket> with subjects $KV.<bucket>.<key>.
const (
	BucketCheckpoints = "checkpoints"
	BucketHashes      = "hashes"
	BucketLedgers     = "ledgers"
	BucketJobs        = "jobs"
	// BucketStatus holds what running processes tell of themselves; nothing depends on it.
	BucketStatus = "status"
)

// Subjects that the streams take.
const (
	SubjectsRaw    = "alerts.raw.>"
	SubjectsUnique = "alerts.unique.>"
	SubjectsDead   = "alerts.dead.>"

	SubjectsInternal = "internal.>"
	// SubjectInternalLines is for every output; a message is one frame, as it goes on the wire.
	SubjectInternalLines = "internal.lines"
)

// SubjectFiller takes the place of sequences that UNIQUE has lost, for the moment until it is purged. It is nobody's alert.
const SubjectFiller = "alerts.unique.filler"

// Keys of the keeper's in the checkpoints bucket.
const (
	WatchKey = "keeper.watch" // what it last saw of the streams
	LossKey  = "keeper.loss"  // the last loss that it noticed
)

// ConsumerDedup is the durable consumer on RAW that all dedup replicas share.
const ConsumerDedup = "dedup"

// BucketStream is the stream behind a bucket.
func BucketStream(bucket string) string { return "KV_" + bucket }

// BucketSubject is the subject on which a key of a bucket is stored.
func BucketSubject(bucket, key string) string { return "$KV." + bucket + "." + key }

// Token encodes any text as one subject token, key part or consumer name: letters, digits, '-' and '_'
// stand for themselves, every other byte is '=' and two hexadecimal digits. The empty text is "=".
// It is injective, so two names never share a consumer.
func Token(name string) string {
	if name == "" {
		return "="
	}
	plain := 0
	for plain < len(name) && tokenByte(name[plain]) {
		plain++
	}
	if plain == len(name) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; tokenByte(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// FromToken is the inverse of [Token]; what Token does not write is an error.
func FromToken(token string) (string, error) {
	if token == "=" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '=' {
			b.WriteByte(token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("token %q ends inside an escape", token)
		}
		v, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("token %q: %w", token, err)
		}
		b.WriteByte(byte(v))
		i += 2
	}
	if name := b.String(); Token(name) == token {
		return name, nil
	}
	return "", fmt.Errorf("token %q is not how its text is written", token)
}

// Source is where alerts come from: one service of one input. It is what a checkpoint, a lease and a
// generation belong to; another input id is another source with a state of its own.
type Source struct {
	Input   string // name in the configuration, for example defender_for_iot
	InputID string // id in the configuration
	Service string // for example iot_security_alerts
}

// Token is the source as three subject tokens.
func (s Source) Token() string {
	return Token(s.Input) + "." + Token(s.InputID) + "." + Token(s.Service)
}

// String is the form that logs show.
func (s Source) String() string { return s.Input + "," + s.InputID + "," + s.Service }

// RawSubject is the subject of the source's rows in RAW.
func RawSubject(s Source) string { return "alerts.raw." + s.Token() }

// UniqueSubject is the subject of one first sighting. Publishing on it expects that it holds no message,
// so that publishing again is harmless at any time.
func UniqueSubject(s Source, generation uint64, hash string) string {
	return UniqueSubjectOf(HashKey(s, generation, hash))
}

// UniqueSubjectOf is the subject in UNIQUE of the alert whose claim has that key.
func UniqueSubjectOf(hashKey string) string { return "alerts.unique." + hashKey }

// HashKey is the key of a claim in the hashes bucket.
func HashKey(s Source, generation uint64, hash string) string {
	return GenerationPrefix(s, generation) + "." + hash
}

// GenerationPrefix is what the claims of one generation begin with.
func GenerationPrefix(s Source, generation uint64) string {
	return s.Token() + "." + strconv.FormatUint(generation, 10)
}

// DeadPrefix is what the subjects of a stage's dead letters begin with; output is empty for all stages but
// the sender.
func DeadPrefix(stage, output string) string {
	return "alerts.dead." + Token(stage) + "." + Token(output)
}

// RecordPrefix is what the keys of all records begin with.
const RecordPrefix = "record."

// RecordKey and LeaseKey are the source's keys in the checkpoints bucket.
func RecordKey(s Source) string { return RecordPrefix + s.Token() }

// LeaseKey is the key of the lease that the source's one active fetcher holds.
func LeaseKey(s Source) string { return "lease." + s.Token() }

// LeaseKeys are the keys of all leases.
const LeaseKeys = "lease.>"

// LedgerKey is the key of one sender process's record in an output's ledger.
func LedgerKey(output, instance string) string { return Token(output) + "." + Token(instance) }

// LedgerOf is the token of the output that a ledger record on subject belongs to.
func LedgerOf(subject string) string {
	token, _, _ := strings.Cut(strings.TrimPrefix(subject, BucketSubject(BucketLedgers, "")), ".")
	return token
}

// OutputConsumer is the durable consumer of an output on UNIQUE, and the one on INTERNAL.
func OutputConsumer(output string) string { return "output-" + Token(output) }

// InternalMetricSubject is the subject of the metric messages of one output; a message is one frame.
func InternalMetricSubject(output string) string { return "internal.metric." + Token(output) }

// OutputOfConsumer gives the output's name back; ok is false for consumers that are no output's.
func OutputOfConsumer(consumer string) (output string, ok bool) {
	token, found := strings.CutPrefix(consumer, "output-")
	if !found {
		return "", false
	}
	name, err := FromToken(token)
	return name, err == nil
}
