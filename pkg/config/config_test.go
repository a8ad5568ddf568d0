package config

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"defenderiot/pkg/fault"

	"pgregory.net/rapid"
)

// parsed is a file of testdata that must be valid.
func parsed(t *testing.T, path string) *Config {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := parseNow(path, data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := parsed(t, "valid/minimal.yaml")
	in := c.Inputs[InputName]
	service := in.Services.IoTSecurityAlerts
	for name, pair := range map[string][2]any{
		"globals.id":    {c.Globals.ID, "12345"},
		"stats":         {c.Globals.SenderStatsPeriodInSec, 600},
		"gzip":          {c.Globals.GzipThreshold, 1.1},
		"state":         {c.StateDir(), "state"},
		"input.id":      {in.ID, "23453"},
		"enabled":       {in.Enabled, true},
		"cloud":         {in.Cloud, CloudPublic},
		"custom":        {in.CustomCloud == nil, true},
		"kind":          {in.Credentials.Kind(), CredentialClientSecret},
		"secret":        {in.Credentials.ClientSecret.Reveal(), "s3cr3t-value"},
		"refresh":       {in.Autoconfig.RefreshIntervalInSeconds, 600},
		"period":        {service.RequestPeriodInSeconds, 60},
		"start":         {service.StartTimeInUTC.IsZero(), true},
		"overlap":       {service.OverlapInMinutes, 10},
		"lookback":      {service.LookbackInMinutes, 2880},
		"quota":         {service.QuotaShare, 0.6},
		"deduplication": {service.Deduplication, DeduplicateAlert},
		"listen":        {c.Telemetry.Listen, "127.0.0.1:8080"},
		"level":         {c.Level(), slog.LevelInfo},
		"embedded":      {c.Bus.IsEmbedded(), true},
		"bus listen":    {c.Bus.Embedded.Listen, "127.0.0.1:0"},
		"sync":          {c.Bus.Embedded.Sync.Always(), true},
		"replicas":      {c.Bus.Replicas, 1},
		"unique":        {c.Bus.Retention.Unique.Std(), 720 * time.Hour},
		"hashes":        {c.Bus.Retention.Hashes.Std(), 3600 * time.Hour},
		"raw":           {c.Bus.Limits.Raw, Bytes(1 << 30)},
		"unique bytes":  {c.Bus.Limits.Unique, Bytes(16 << 30)},
		"bus tls":       {c.Bus.TLS == nil, true},
		"transport":     {c.Outputs["console_1"].Transport(), TransportConsole},
		"destination":   {c.Outputs["console_1"].Config.Destination, "standard"},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %v, want %v", name, pair[0], pair[1])
		}
	}
	if want := []string{"properties.endTimeUtc", "properties.extendedProperties.isNew", "systemData"}; !slices.Equal(service.DeduplicationIgnore, want) {
		t.Errorf("deduplication_ignore: got %v", service.DeduplicationIgnore)
	}
}

func TestOutputs(t *testing.T) {
	c := parsed(t, "valid/known-template.yaml")
	relay := c.Outputs["devo_2"]
	if relay.HostPort() != "collector-eu.devo.io:443" || relay.Transport() != TransportTLS || !relay.Config.VerifyCertificate {
		t.Errorf("relay: %s %+v", relay.HostPort(), relay)
	}
	if got := c.CertPath(relay.Config.Chain); got != filepath.Join("certs", "chain.crt") {
		t.Errorf("chain: %s", got)
	}
	if got := c.CertPath(relay.Config.Key); got != "/etc/keys/my_domain.key" {
		t.Errorf("key: %s", got)
	}
	if got := relay.Config; got.RotateAfterEvents != 2500 || got.RotateAfterInSeconds != 5 || got.ConcurrentConnections != 1 || !got.From.Now() {
		t.Errorf("delivery defaults: %+v", got)
	}
	merged := parsed(t, "valid/anchors.yaml").Outputs["two"]
	if merged.HostPort() != "b.example.com:443" || merged.Config.Chain != "chain.crt" {
		t.Errorf("merge keys: %+v", merged)
	}
	overridden := parsed(t, "valid/global-overrides.yaml").Outputs["devo_1"].Config
	if overridden.GzipThreshold != -0.5 || overridden.CompressionLevel != 9 || overridden.CompressionBufferInBytes != 100 {
		t.Errorf("globals do not override: %+v", overridden)
	}
}

func TestEverything(t *testing.T) {
	c := parsed(t, "valid/everything.yaml")
	if got := c.Level(); got != slog.LevelDebug {
		t.Errorf("debug wins: %v", got)
	}
	if got := c.Outputs["devo_1"].Config.From.Time; !got.Equal(time.Date(2023, 10, 1, 7, 1, 0, 0, time.UTC)) {
		t.Errorf("from: %v", got)
	}
	if !c.Outputs["side"].Config.From.Beginning || c.Outputs["side"].HostPort() != "[::1]:601" {
		t.Errorf("side: %+v", c.Outputs["side"])
	}
	for name, kind := range map[string]CredentialKind{
		InputName: CredentialClientSecret, InputName + "_certificate": CredentialClientCertificate,
		InputName + "_managed": CredentialManagedIdentity, InputName + "_workload": CredentialWorkloadIdentity,
	} {
		if got := c.Inputs[name].Credentials.Kind(); got != kind {
			t.Errorf("%s: got %s, want %s", name, got, kind)
		}
	}
	if got := c.Inputs[InputName+"_managed"].Credentials.ManagedIdentity.ClientID; got != "some-client" {
		t.Errorf("managed identity: %q", got)
	}
	rules := c.Inputs[InputName].Services.IoTSecurityAlerts.ObfuscationData
	if len(rules) != 4 || rules[1].Value != "DEVO" || rules[2].Value != 7 || rules[0].Value != nil || !rules[3].StringPatterns[0].MatchString("10.2") {
		t.Errorf("obfuscation: %+v", rules)
	}
	if c.Bus.Password.Reveal() != "s3cr3t-value" || c.Bus.Limits.Raw != 500e6 || c.Bus.Limits.Unique != 32<<30 || c.Bus.Retention.Unique.Std() != 30*24*time.Hour {
		t.Errorf("bus: %+v", c.Bus)
	}
}

func TestScalarsAreTakenAsWritten(t *testing.T) {
	c := parsed(t, "valid/lenient-scalars.yaml")
	service := c.Inputs[InputName].Services.IoTSecurityAlerts
	if c.Globals.Name != "2023-10-01" || !c.Globals.Debug || c.Outputs["side"].Config.Port != 601 || service.RequestPeriodInSeconds != 300 {
		t.Errorf("got %+v", c)
	}
	if want := time.Date(2026, 11, 1, 3, 4, 5, 0, time.UTC); !service.StartTimeInUTC.Time.Equal(want) || service.StartTimeInUTC.String() != "2026-11-01 03:04:05" {
		t.Errorf("start: %+v", service.StartTimeInUTC)
	}
	if rule := service.ObfuscationData[0]; rule.Value != "2020-01-01" || rule.Name[1] != "0" {
		t.Errorf("rule: %+v", rule)
	}
	if got := c.Outputs["from_env"].Config.Port; got != 8443 {
		t.Errorf("port from the environment: %d", got)
	}
	if got := c.Inputs[InputName].Credentials.ClientSecret.Reveal(); got != planted+"-from-env" {
		t.Errorf("secret from the environment: %q", got)
	}
	if got := parsed(t, "warned/lenient-period.yaml").Inputs[InputName].Services.IoTSecurityAlerts.RequestPeriodInSeconds; got != 60 {
		t.Errorf("a period of 60.7: %d", got)
	}
	if got := parsed(t, "valid/tabs-and-surrogates.json").Inputs[InputName].Environment; got != "pr😀d" {
		t.Errorf("surrogate pair: %q", got)
	}
}

func TestSecretFiles(t *testing.T) {
	base, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ content, want string }{
		"newline":        {"a b\n", "a b"},
		"carriage":       {"a b\r\n", "a b"},
		"one only":       {"a\n\n", "a\n"},
		"none":           {"a", "a"},
		"not expanded":   {"${SECRET}", "${SECRET}"},
		"like a boolean": {"true", "true"},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := parseNow("x.yaml", []byte(strings.Replace(string(base), "s3cr3t-value", "file://"+path, 1)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.Inputs[InputName].Credentials.ClientSecret.Reveal(); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := parseNow("x.yaml", []byte(strings.Replace(string(base), "s3cr3t-value", "file://"+empty, 1))); err == nil {
		t.Error("an empty secret file was taken")
	}
}

func TestReferences(t *testing.T) {
	base, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`"pre-${PORT}-post"`: "pre-8443-post", `"$${PORT}"`: "${PORT}", `$PORT`: "$PORT", `"a${"`: "a${", "${PORT}": "8443",
	} {
		c, _, err := parseNow("x.yaml", []byte(strings.Replace(string(base), "id: 23453", "id: 23453\n    environment: "+text, 1)))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Inputs[InputName].Environment; got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	good, err := os.ReadFile("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := os.ReadFile("testdata/valid/tabs-and-surrogates.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"config/config.yaml": good, "config.yaml": []byte("wrong"), "other.yml": good, "config/a.json": asJSON, "config/a.txt": good, "config/folder.yaml/x": nil,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		path, variable, want string
		code                 int
	}{
		"default":            {want: "config/config.yaml"},
		"variable":           {variable: "a.json", want: "config/a.json"},
		"flag wins":          {path: "other.yml", variable: "a.json", want: "other.yml"},
		"absolute":           {path: filepath.Join(dir, "other.yml"), want: "other.yml"},
		"absent":             {path: "nothing.yaml", code: codeMissing},
		"folder":             {path: "folder.yaml", code: codeMissing},
		"absolute folder":    {path: filepath.Join(dir, "config/folder.yaml"), code: codeStructure},
		"extension":          {path: "a.txt", code: codeStructure},
		"no configuration":   {path: filepath.Join(dir, "config.yaml"), code: codeStructure},
		"absent in variable": {variable: "nothing.yaml", code: codeMissing},
	} {
		c, _, err := Load(Options{Path: tc.path, Workdir: dir, Environ: func(key string) (string, bool) {
			return tc.variable, key == "CONFIG_FILE" && tc.variable != ""
		}})
		if tc.want == "" {
			e, ok := errors.AsType[*fault.Error](err)
			if !ok || e.Type != fault.TypeConfiguration || e.Code != tc.code {
				t.Errorf("%s: got %v, want code %d", name, err, tc.code)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := filepath.Join(dir, tc.want); c.File() != want || c.StateDir() != filepath.Join(dir, "state") || c.CertPath("x") != filepath.Join(dir, "certs", "x") {
			t.Errorf("%s: got %s, %s", name, c.File(), c.StateDir())
		}
	}
}

func TestStartTimes(t *testing.T) {
	want := time.Date(2023, 10, 1, 9, 1, 0, 0, time.UTC)
	for _, text := range []string{
		"2023-10-01T09:01:00Z", "2023-10-01t09:01:00z", "2023-10-01T11:01:00+02:00", "2023-10-01T11:01:00.000+0200",
		"2023-10-01T09:01:00", "2023-10-01T09:01", "2023-10-01 09:01:00", "2023-10-01 09:01:00.000000", "2023-10-01 11:01:00+02:00",
		"2023-10-01 09:01:00 UTC", " 2023-10-01 09:01 ", "20231001T090100Z", "Sun, 01 Oct 2023 09:01:00 UTC", "2023/10/01 09:01:00",
	} {
		var got StartTime
		if err := got.UnmarshalText([]byte(text)); err != nil || !got.Time.Equal(want) || got.Time.Location() != time.UTC {
			t.Errorf("%q: %v %v", text, got.Time, err)
		}
	}
	for _, text := range []string{"", "now", "01/10/2023", "2023-13-01", "2023-02-30T00:00:00Z", "1696150860"} {
		if err := new(StartTime).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]Bytes{"1GiB": 1 << 30, "500MB": 500e6, "1.5KiB": 1536, "2 TB": 2e12, "7": 7, "7B": 7, "0.5KB": 500} {
		var got Bytes
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1gb", "GiB", "999999999TiB", "1e9", "0.1B"} {
		if err := new(Bytes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Bytes(rapid.Int64Min(1).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "round") {
			want = max(want>>40<<10, 1)
		}
		var got Bytes
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%s: %d %v", want, got, err)
		}
	})
}

func TestPeriods(t *testing.T) {
	for text, want := range map[string]time.Duration{"5s": 5 * time.Second, "2m": 2 * time.Minute, "3h": 3 * time.Hour, "1d": day, "1w": 7 * day, "1M": 30 * day, "1y": 365 * day} {
		var got Period
		if err := got.UnmarshalText([]byte(text)); err != nil || got.Std() != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "s", "0s", "1x", "-1s", "1.5h", "9999999y"} {
		if err := new(Period).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"url", "user", "quota_share", "lookback_in_minutes"}
	for name, want := range map[string]string{
		"urls": "url", "qouta_share": "quota_share", "Quota-Share": "quota_share", "lookback_minutes": "lookback_in_minutes", "zzzzzzzz": "", "x": "",
	} {
		if got := nearest(name, candidates); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestEveryFieldIsDescribed holds the promise that the tags are the one description.
func TestEveryFieldIsDescribed(t *testing.T) {
	m, err := model()
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		s, ok := node.(map[string]any)
		if !ok {
			return
		}
		properties, _ := s["properties"].(map[string]any)
		for name, p := range properties {
			if text, _ := p.(map[string]any)["description"].(string); text == "" {
				t.Errorf("%s.%s has no description", path, name)
			}
			walk(path+"."+name, p)
		}
		walk(path+".*", s["additionalProperties"])
		walk(path+"[]", s["items"])
	}
	walk("", m.raw)
	if strings.Contains(string(m.text), `\\,`) || !json.Valid(m.text) {
		t.Error("the schema is not what the tags mean")
	}
}

// TestDefaultsAreAllowed: what fill writes must pass the validation that a file passes.
func TestDefaultsAreAllowed(t *testing.T) {
	m, err := model()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"valid/minimal.yaml", "valid/known-template.yaml", "valid/everything.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", path))
		if err != nil {
			t.Fatal(err)
		}
		r := &report{file: path}
		root := readTree(r, data)
		(&shaper{report: r, env: environment, now: now}).shape(root, reflect.TypeFor[Config](), m.root)
		fill(root, reflect.TypeFor[Config](), m.root)
		if validate(root, m, r); r.failed() {
			t.Errorf("%s: %v", path, r.err())
		}
	}
}
