package collector

import (
	"crypto/md5" //nolint:gosec // names files, protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/pickle"
	"defenderiot/proto"
	"defenderiot/services/fetcher"
)

// errNoPosition: the known collector had not read anything yet when it wrote its state.
var errNoPosition = errors.New("the state holds no position: nothing had been read when it was written")

// azureKeeps is how long Azure keeps alerts.
const azureKeeps = 90 * 24 * time.Hour

// knownState is the known collector's state of one source: what it had read, and had queued or sent.
type knownState struct {
	start, lastEvent time.Time // zero where there is none
	lastIDs          []string
	skipToken        bool
}

// stateFile is the name of a source's state file: the MD5 of the known collector's key for it. The last
// part is the submodule, which this input has none of.
func stateFile(s proto.Source) string {
	return md5Name(s.Input + ";" + s.InputID + ";" + s.Service + ";None")
}

func md5Name(key string) string {
	sum := md5.Sum([]byte(key)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

var stateName = regexp.MustCompile(`^[0-9a-f]{32}$`)

// readState reads a file; it never reads more than a pickle may hold.
func readState(path string) (any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, pickle.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	return pickle.Load(data)
}

// readKnownState reads the state in a file. What is not exactly such a state is an error: a position that
// was guessed loses alerts or sends them twice.
func readKnownState(path string, now time.Time) (*knownState, error) {
	v, err := readState(path)
	var state *knownState
	if err == nil {
		state, err = knownStateOf(v, now)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoPosition) {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("state file %s: %w", path, err),
			"restore the file from a backup, or move it away to begin at start_time_in_utc; nothing was changed")
	}
	return state, nil
}

func knownStateOf(v any, now time.Time) (*knownState, error) {
	members, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("it holds no dict but a %T", v)
	}
	if n, ok := undelivered(v); ok {
		return nil, fmt.Errorf("it is no fetch position but the emergency persistence of a sender, with %d undelivered messages", n)
	}
	version, ok := members["@persistence_version"].(int64)
	switch {
	case !ok || version < 1:
		return nil, errors.New("@persistence_version is missing: it is no state of the known collector")
	case version > proto.PersistenceVersion:
		return nil, fmt.Errorf("@persistence_version is %d, this program reads up to %d", version, proto.PersistenceVersion)
	}
	s := &knownState{skipToken: members["skip_token"] != nil}
	var err1, err2, err3 error
	s.start, err1 = instant(members, "start_time_in_utc")
	s.lastEvent, err2 = instant(members, "last_event_time_in_utc")
	s.lastIDs, err3 = texts(members, "last_ids")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	switch {
	case s.lastEvent.After(now) || s.start.After(now):
		// Everything before it would be claimed and never sent.
		return nil, errors.New("start_time_in_utc or last_event_time_in_utc lies in the future")
	case s.lastEvent.IsZero() && s.start.IsZero():
		return nil, errNoPosition
	case !s.lastEvent.IsZero() && s.lastEvent.Before(s.start):
		return nil, errors.New("last_event_time_in_utc lies before start_time_in_utc")
	}
	return s, nil
}

// undelivered counts the messages of an emergency persistence.
func undelivered(v any) (int, bool) {
	members, _ := v.(map[string]any)
	messages, ok := members["messages"].([]any)
	if !ok {
		return 0, false
	}
	n := 0
	for _, m := range messages {
		one, _ := m.(map[string]any)
		if many, ok := one["number_of_messages"].(int64); ok && many > 0 {
			n += int(min(many, 1<<30))
		} else {
			n++
		}
	}
	return n, true
}

func instant(members map[string]any, name string) (time.Time, error) {
	switch v := members[name].(type) {
	case nil:
		return time.Time{}, nil
	case string:
		var t config.StartTime
		if err := t.UnmarshalText([]byte(v)); err != nil {
			return time.Time{}, fmt.Errorf("%s %.60q is not %w", name, v, err)
		}
		return t.Time, nil
	default:
		return time.Time{}, fmt.Errorf("%s is a %T, not the text of a time", name, v)
	}
}

func texts(members map[string]any, name string) ([]string, error) {
	items, ok := members[name].([]any)
	if !ok && members[name] != nil {
		return nil, fmt.Errorf("%s is a %T, not a list", name, members[name])
	}
	if len(items) > proto.MaxClaimingIDs {
		return nil, fmt.Errorf("%s holds %d ids, at most %d are read", name, len(items), proto.MaxClaimingIDs)
	}
	out := make([]string, 0, len(items))
	for _, item := range items {
		id, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("%s holds a %T, not only texts", name, item)
		}
		out = append(out, proto.Identity(id))
	}
	return out, nil
}

// record is the record that goes on where the state ends. Its first phase claims what was sent before.
func (s *knownState) record(input config.Input) proto.Checkpoint {
	alerts := input.Services.IoTSecurityAlerts
	position, floor := s.lastEvent, s.start
	if position.IsZero() {
		position = s.start
	}
	if floor.IsZero() {
		floor = position.Add(-azureKeeps)
	}
	c := proto.Checkpoint{
		PersistenceVersion: proto.PersistenceVersion, Generation: 1, Floor: floor, LastEventTime: position,
		LastIDs: s.lastIDs[:min(len(s.lastIDs), proto.MaxLastIDs)], Deduplication: alerts.Deduplication,
	}
	// Without a configured start the state's is kept as the floor alone: taken for a removed setting, it
	// would restart everything a day before now.
	if !s.start.IsZero() && !alerts.StartTimeInUTC.IsZero() {
		c.StartTime = &s.start
	}
	if !s.lastEvent.IsZero() {
		c.Claiming = &proto.Claiming{Before: s.lastEvent, Through: floor, IDs: s.lastIDs}
	}
	return c
}

// ownerOf says what a state file is for by its name; source is nil where it is no fetch position of c.
func ownerOf(c *config.Config, name string) (source *proto.Source, what string) {
	for _, input := range keys(c.Inputs) {
		s := proto.Source{Input: input, InputID: c.Inputs[input].ID, Service: fetcher.ServiceName}
		if stateFile(s) == name {
			return &s, "the state of " + s.String()
		}
	}
	emergency := []string{"OutputStandardConsumer(standard_senders_consumer_0)", "OutputInternalConsumer(internal_senders_consumer_0)", "OutputLookupConsumer(lookup_senders_consumer_0)"}
	for _, output := range keys(c.Outputs) {
		for _, senders := range []string{"standard", "internal", "lookup"} {
			emergency = append(emergency, "DevoSenderManager("+senders+"_senders,manager,"+output+")")
		}
	}
	for _, key := range emergency {
		if md5Name(key) == name {
			return nil, "the emergency persistence of " + key
		}
	}
	return nil, ""
}

// undeliveredFiles are the files of dir that hold messages which the known collector never delivered.
func undeliveredFiles(dir string) map[string]int {
	found := map[string]int{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return found
	}
	for _, e := range entries {
		if !stateName.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if v, err := readState(filepath.Join(dir, e.Name())); err == nil {
			if n, ok := undelivered(v); ok && n > 0 {
				found[e.Name()] = n
			}
		}
	}
	return found
}
