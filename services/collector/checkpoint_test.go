package collector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/embedded"
	"defenderiot/pkg/process"
	"defenderiot/proto"
	"defenderiot/services/collector"
)

var update = flag.Bool("update", false, "write the golden files from what the commands print today")

// stateName is the name of the known collector's state file for the input of operatorConfig.
const stateName = "a4aca9501ed77e68062cea068540f289"

const operatorConfig = `globals: {id: test, name: test, persistence: {type: filesystem, config: {directory_name: state}}}
telemetry: {listen: "127.0.0.1:0"}
outputs:
  devo_1: {type: console}
inputs:
  defender_for_iot:
    id: "23453"
    enabled: true
    credentials: {tenant_id: 11111111-2222-3333-4444-555555555555, client_id: 11111111-2222-3333-4444-555555555555, client_secret: worthless}
    cloud: custom
    custom_cloud: {authority_host: "https://127.0.0.1:1", resource_manager_endpoint: "https://127.0.0.1:1", resource_manager_audience: "https://127.0.0.1:1"}
    services:
      iot_security_alerts:
        start_time_in_utc: "2023-10-01T09:01:00Z"
`

const secondInput = `  defender_for_iot_2:
    id: "777"
    enabled: false
    credentials: {tenant_id: 11111111-2222-3333-4444-555555555555, client_id: 11111111-2222-3333-4444-555555555555, client_secret: worthless}
    services:
      iot_security_alerts: {}
`

var operatorSource = proto.Source{Input: "defender_for_iot", InputID: "23453", Service: "iot_security_alerts"}

// Records that operators find.
const (
	ordinaryRecord = `{"@persistence_version":1,"start_time_in_utc":"2023-10-01T09:01:00Z","last_event_time_in_utc":"2024-03-01T10:00:00.25Z","last_ids":["/a"],"skip_token":null,"generation":3,"floor_in_utc":"2023-10-01T09:01:00Z","deduplication":"alert","subscriptions_seen":["s"],"rescan":[{"from":"2024-01-01T00:00:00Z","to":"2024-01-01T00:00:01Z"}]}`
	claimingRecord = `{"@persistence_version":1,"start_time_in_utc":null,"last_event_time_in_utc":"2024-03-01T10:00:00Z","last_ids":[],"skip_token":null,"generation":2,"floor_in_utc":"2023-12-01T00:00:00Z","claiming":{"before":"2024-03-01T10:00:00Z","through":"2024-01-05T00:00:00Z","known_in_generation":1}}`
	newerRecord    = `{"@persistence_version":2,"generation":"seven"}`
	cutRecord      = `{"@persistence_version":1,"start_ti`
)

// site of an operator: a folder with a configuration, and the bus of a collector that runs or does not.
type operatorSite struct {
	t   *testing.T
	dir string
}

func newOperatorSite(t *testing.T, extra string) *operatorSite {
	t.Helper()
	for _, name := range []string{"CONFIG_FILE", "ENV_FILE", "BUS_URL"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	s := &operatorSite{t: t, dir: t.TempDir()}
	s.write("config.yaml", []byte(operatorConfig+extra))
	t.Chdir(s.dir)
	return s
}

func (s *operatorSite) write(name string, content []byte) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// serve runs the bus of the folder until stop is called.
func (s *operatorSite) serve() (kv jetstream.KeyValue, stop func()) {
	s.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	server, err := embedded.Start(embedded.Settings{Dir: filepath.Join(s.dir, "state", "bus"), Listen: "127.0.0.1:0", Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	to := server.Connection()
	b, err := bus.Connect(bus.Settings{InProcess: server.InProcess(), User: to.User, Password: to.Secret(), Name: "test", Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := b.Provision(s.t.Context(), bus.Topology{Replicas: 1, RawBytes: 1 << 26, UniqueBytes: 1 << 26, UniqueRetention: time.Hour, HashRetention: 2 * time.Hour}, false); err != nil {
		s.t.Fatal(err)
	}
	if kv, err = b.KeyValue(s.t.Context(), proto.BucketCheckpoints); err != nil {
		s.t.Fatal(err)
	}
	return kv, sync.OnceFunc(func() {
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = b.Close(end)
		if err := server.Shutdown(end); err != nil {
			s.t.Error(err)
		}
	})
}

// collector runs a command and returns all that it prints, and its exit code.
func (s *operatorSite) collector(ctx context.Context, errors io.Writer, args ...string) (string, int) {
	s.t.Helper()
	var out bytes.Buffer
	if errors == nil {
		errors = &out
	}
	cmd := collector.Command(&out, errors)
	cmd.SetArgs(append(args, "--config", "config.yaml"))
	err := cmd.ExecuteContext(ctx)
	if err != nil && ctx.Err() == nil {
		process.Print(errors, "collector", err)
	}
	return out.String(), process.Code(err)
}

var (
	ages   = regexp.MustCompile(`[0-9hms.]+ ago`)
	jsonly = regexp.MustCompile(`"(time|written|age_in_seconds|replaced_at)": [^,\n]*`)
)

func TestCheckpointCommands(t *testing.T) {
	reset := func(args ...string) []string { return append([]string{"checkpoint", "reset", "--to"}, args...) }
	imports := func(args ...string) []string { return append([]string{"checkpoint", "import"}, args...) }
	show := []string{"checkpoint", "show"}
	for name, tc := range map[string]struct {
		records []string // revisions, oldest first
		running bool
		file    string // of testdata/state, put there as as
		as      string
		args    []string
		code    int
		extra   string // of the configuration
		none    bool   // no bus has ever run here
	}{
		"show":                      {records: []string{ordinaryRecord}, running: true, args: show},
		"show-json":                 {records: []string{ordinaryRecord}, running: true, args: append(show, "--json")},
		"show-claiming":             {records: []string{claimingRecord}, args: show},
		"show-none":                 {running: true, args: show},
		"show-nothing-runs":         {none: true, args: show, code: 1},
		"show-cut":                  {records: []string{cutRecord}, args: show, code: 1},
		"show-newer-json":           {records: []string{newerRecord}, args: append(show, "--json"), code: 1},
		"reset":                     {records: []string{ordinaryRecord}, running: true, args: reset("2024-02-01 00:00:00")},
		"reset-alone":               {records: []string{ordinaryRecord}, args: reset("2024-02-01")},
		"reset-resend":              {records: []string{ordinaryRecord}, running: true, args: reset("2024-02-01T00:00:00Z", "--resend")},
		"reset-resend-all":          {records: []string{ordinaryRecord}, args: reset("2023-10-01T09:01:00Z", "--resend")},
		"reset-dry-run":             {records: []string{ordinaryRecord}, running: true, args: reset("2024-02-01T00:00:00Z", "--dry-run", "--resend")},
		"reset-below-start":         {records: []string{ordinaryRecord}, args: reset("2023-10-01T09:00:59Z"), code: 1},
		"reset-ahead":               {records: []string{ordinaryRecord}, args: reset("2024-03-02T00:00:00Z"), code: 1},
		"reset-future":              {records: []string{ordinaryRecord}, args: reset("2999-01-01T00:00:00Z"), code: 1},
		"reset-unparseable":         {records: []string{ordinaryRecord}, args: reset("01/02/2024"), code: 1},
		"reset-no-record":           {running: true, args: reset("2024-02-01T00:00:00Z"), code: 1},
		"reset-while-claiming":      {records: []string{claimingRecord}, args: reset("2024-02-01T00:00:00Z", "--resend"), code: 1},
		"reset-cut":                 {records: []string{ordinaryRecord, cutRecord}, args: reset("2024-02-01T00:00:00Z")},
		"reset-cut-no-other":        {records: []string{cutRecord}, args: reset("2024-02-01T00:00:00Z"), code: 1},
		"reset-newer":               {records: []string{ordinaryRecord, newerRecord}, args: reset("2024-02-01T00:00:00Z"), code: 1},
		"reset-other-input":         {records: []string{ordinaryRecord}, args: reset("2024-02-01T00:00:00Z", "--input", "nobody"), code: 1},
		"import":                    {file: "state-4", args: imports(stateName)},
		"import-running":            {file: "state-0", running: true, args: imports(stateName)},
		"import-nothing-yet":        {file: "state-2", none: true, args: imports(stateName)},
		"import-dry-run":            {file: "state-3", running: true, args: imports(stateName, "--dry-run")},
		"import-no-start":           {file: "no-start", args: imports(stateName)},
		"import-other-start":        {file: "other-start", args: imports(stateName)},
		"import-skip-token":         {file: "skip-token", args: imports(stateName)},
		"import-over-record":        {file: "state-5", records: []string{ordinaryRecord}, args: imports(stateName), code: 1},
		"import-over-record-resend": {file: "state-5", records: []string{ordinaryRecord}, args: imports(stateName, "--resend")},
		"import-renamed":            {file: "state-1", as: "backup.bin", args: imports("backup.bin"), code: 1},
		"import-renamed-input":      {file: "state-1", as: "backup.bin", args: imports("backup.bin", "--input", "defender_for_iot")},
		"import-other-input":        {file: "state-4", as: "55ff2fcf38fea30571be9e363c7392a8", args: imports("55ff2fcf38fea30571be9e363c7392a8", "--input", "defender_for_iot"), extra: secondInput, code: 1},
		"import-sender":             {file: "emergency", as: "5bdbabbd30e1988d6e2b0b74b6ec3289", args: imports("5bdbabbd30e1988d6e2b0b74b6ec3289"), code: 1},
		"import-emergency":          {file: "emergency", args: imports(stateName), code: 1},
		"import-cut":                {file: "cut", args: imports(stateName), code: 1},
		"import-newer":              {file: "newer", args: imports(stateName), code: 1},
		"import-no-version":         {file: "no-version", args: imports(stateName), code: 1},
		"import-future":             {file: "future", args: imports(stateName), code: 1},
		"import-reversed":           {file: "reversed", args: imports(stateName), code: 1},
		"import-no-position":        {file: "no-position", args: imports(stateName), code: 1},
		"import-unparseable":        {file: "unparseable", args: imports(stateName), code: 1},
		"import-epoch":              {file: "epoch", args: imports(stateName), code: 1},
		"import-ids":                {file: "ids", args: imports(stateName), code: 1},
		"import-list":               {file: "list", args: imports(stateName), code: 1},
		"import-missing":            {args: imports(stateName), code: 1},
	} {
		t.Run(name, func(t *testing.T) {
			golden, err := filepath.Abs(filepath.Join("testdata", "checkpoint", name+".golden"))
			if err != nil {
				t.Fatal(err)
			}
			var state []byte
			if tc.file != "" {
				if state, err = os.ReadFile(filepath.Join("testdata", "state", tc.file+".pickle")); err != nil {
					t.Fatal(err)
				}
			}
			s := newOperatorSite(t, tc.extra)
			if tc.as == "" {
				tc.as = stateName
			}
			if state != nil {
				s.write(tc.as, state)
			}
			var kv jetstream.KeyValue
			stop := func() {}
			if !tc.none {
				kv, stop = s.serve()
				defer stop()
				for _, r := range tc.records {
					if _, err := kv.Put(t.Context(), proto.RecordKey(operatorSource), []byte(r)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tc.running {
				if _, err := kv.Put(t.Context(), proto.LeaseKey(operatorSource), []byte(`{"holder":"h"}`)); err != nil {
					t.Fatal(err)
				}
			} else {
				stop()
			}
			got, code := s.collector(t.Context(), nil, tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if strings.HasPrefix(name, "reset") || strings.HasPrefix(name, "import") {
				if !tc.running {
					kv, stop = s.serve()
					defer stop()
				}
				got += "---- record afterwards\n" + stored(t, kv)
			}
			got = strings.ReplaceAll(jsonly.ReplaceAllString(ages.ReplaceAllString(got, "AGO ago"), `"$1": "…"`), s.dir, "DIR")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}

// stored is the record in the bucket.
func stored(t *testing.T, kv jetstream.KeyValue) string {
	t.Helper()
	entry, err := kv.Get(t.Context(), proto.RecordKey(operatorSource))
	if err != nil {
		return err.Error() + "\n"
	}
	var b bytes.Buffer
	if json.Indent(&b, entry.Value(), "", "  ") != nil {
		return string(entry.Value()) + "\n"
	}
	return b.String() + "\n"
}
