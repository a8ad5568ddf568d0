package collector_test

import (
	"context"
	"crypto/md5" //nolint:gosec // names files
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"defenderiot/pkg/config"
	"defenderiot/pkg/process"
	contract "defenderiot/proto"
	"defenderiot/services/fetcher"
)

var scriptSource = contract.Source{Input: "defender_for_iot", InputID: "23453", Service: fetcher.ServiceName}

// scriptEdit replaces a text in the configuration.
func scriptEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: edit OLD NEW")
	}
	path := filepath.Join(ts.Getenv("WORK"), "config.yaml")
	content, err := os.ReadFile(path)
	ts.Check(err)
	old, replacement := strings.ReplaceAll(args[0], `\n`, "\n"), strings.ReplaceAll(args[1], `\n`, "\n")
	if !strings.Contains(string(content), old) {
		ts.Fatalf("the configuration has no %q:\n%s", old, content)
	}
	ts.Check(os.WriteFile(path, []byte(strings.Replace(string(content), old, replacement, 1)), 0o600))
}

// scriptCapture keeps the first group of what a regular expression finds in the last program's output.
func scriptCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	found := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%q found %q", args[1], found)
	}
	ts.Setenv(args[0], found[1])
}

// scriptPosition sets FIRST and MIDDLE to when the oldest alert and the one in the middle started, and LEFT to how many
// alerts started then or later.
func scriptPosition(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: position")
	}
	starts := scriptStarts(ts)
	middle := starts[len(starts)/2]
	left := 0
	for _, s := range starts {
		if !s.Before(middle) {
			left++
		}
	}
	ts.Setenv("FIRST", starts[0].Format(time.RFC3339Nano))
	ts.Setenv("MIDDLE", middle.Format(time.RFC3339Nano))
	ts.Setenv("LEFT", fmt.Sprint(left))
}

// scriptStarts are the starts of all alerts, in order.
func scriptStarts(ts *testscript.TestScript) (starts []time.Time) {
	for _, row := range scriptSim(ts).Graph.Rows() {
		start, ok := row.Start()
		if !ok {
			ts.Fatalf("a row has no start")
		}
		starts = append(starts, start.UTC())
	}
	slices.SortFunc(starts, time.Time.Compare)
	return starts
}

// scriptKnown writes the known collector's state file with MIDDLE as its position, by the name that it would have,
// into a folder, and sets KNOWN to its path.
func scriptKnown(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: known FOLDER")
	}
	start, err := time.Parse(time.RFC3339, ts.Getenv("START"))
	ts.Check(err)
	middle, err := time.Parse(time.RFC3339Nano, ts.Getenv("MIDDLE"))
	ts.Check(err)
	sum := md5.Sum([]byte(fmt.Sprintf("%s;%s;%s;None", scriptSource.Input, scriptSource.InputID, scriptSource.Service))) //nolint:gosec // names a file
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, hex.EncodeToString(sum[:]))
	ts.Check(os.WriteFile(path, knownPickle(start, middle), 0o600))
	ts.Setenv("KNOWN", path)
}

// knownPickle is what Python's pickle.dumps(…, 2) writes for the state, but for the memo.
func knownPickle(start, last time.Time) []byte {
	text := func(s string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{'X'}, uint32(len(s))), s...)
	}
	const layout = "2006-01-02T15:04:05.0000000Z"
	b := []byte("\x80\x02}(")
	b = append(append(b, text("@persistence_version")...), 'K', 1)
	b = append(append(b, text("start_time_in_utc")...), text(start.UTC().Format(layout))...)
	b = append(append(b, text("last_event_time_in_utc")...), text(last.UTC().Format(layout))...)
	b = append(append(b, text("skip_token")...), 'N')
	return append(append(b, text("last_ids")...), "]u."...)
}

// scriptSequence numbers messages that letters are about: of one message there is one letter.
var scriptSequence atomic.Uint64

// scriptLetter puts a dead letter of a stage into DEAD of the running collector, as that stage does: of an alert that
// no other stage has seen, or of what is no alert.
func scriptLetter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: letter STAGE ALERT REASON")
	}
	c, _, err := config.Load(config.Options{Path: filepath.Join(ts.Getenv("WORK"), "config.yaml"), Workdir: ts.Getenv("WORK")})
	ts.Check(err)
	b, err := process.Connect(c, "script", slog.New(slog.DiscardHandler))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	defer func() { _ = b.Close(ctx) }()
	for b.Connected() != nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	stage, id, reason := args[0], args[1], args[2]
	at := time.Now().Add(-time.Minute).UTC()
	d := contract.DeadLetter{Stage: stage, AlertID: id, Reason: reason, Attempts: 2, First: at, Last: at.Add(time.Second)}
	row := fmt.Appendf(nil, `{"id":%q,"properties":{"startTimeUtc":%q}}`, id, at.Format(time.RFC3339))
	e := contract.Envelope{
		Row: row, Hash: contract.HashIdentity(id), HashVersion: contract.HashVersion, AlertID: id, EventTime: at,
		Source: scriptSource, Generation: 1, PullStart: at, FetchTime: at, Host: "host", Tag: "edr.microsoft_defender.iot_security.alert",
	}
	d.Payload, err = e.Encode()
	ts.Check(err)
	switch stage {
	case contract.StageFetcher:
		d.Payload = row
	case contract.StageDedup:
		d.Stream, d.Sequence = contract.StreamRaw, scriptSequence.Add(1)
	case contract.StageSender:
		d.Stream, d.Sequence, d.Output = contract.StreamUnique, scriptSequence.Add(1), "devo_1"
	}
	if id == "junk" {
		d.Payload = []byte("junk")
	}
	ts.Check(b.DeadLetter(ctx, d))
}
