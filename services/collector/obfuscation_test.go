package collector_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"defenderiot/services/simulator"
)

// withRules puts obfuscation_data into the site's configuration.
func (s *site) withRules(rules string) {
	s.write("config.yaml", []byte(strings.Replace(string(s.original), "      iot_security_alerts:", "      iot_security_alerts:\n        obfuscation_data: "+rules, 1)))
}

// What the simulated Azure holds under rules reaches neither the endpoint nor the folder; everything else of an
// alert reaches the endpoint as it was, and a row that cannot be delivered leaves a letter without the values.
func TestObfuscatedValuesStayInAzure(t *testing.T) {
	s := newSite(t, simulator.Options{KeepFrames: true})
	s.withRules(`[{name: [name]}, {name: [subscriptionId]}, {name: [properties, extendedProperties, "*"]}, {name: [properties, description], string_patterns: ['192\.168\.\d+\.\d+'], value: address}]`)
	rows := s.Generator.Rows(200)
	s.Graph.Add(rows...)
	s.Graph.Add(s.Generator.Odd(simulator.NoID))
	const n = 203 // with those that a site has
	endpoint := newOTLPReceiver(t)
	got := s.carry(endpoint.URL, n, func() bool { return true })
	if got.status.DeadLetters != 1 {
		t.Errorf("%d dead letters", got.status.DeadLetters)
	}

	type columns struct {
		ID             string `json:"id"`
		Name           string `json:"name"`
		SubscriptionID string `json:"subscriptionId"`
		Properties     struct {
			Description        string         `json:"description"`
			Start              any            `json:"startTimeUtc"`
			Additional         string         `json:"additionalInformation"`
			ExtendedProperties map[string]any `json:"extendedProperties"`
		} `json:"properties"`
	}
	read := func(data []byte) (c columns) {
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		return c
	}
	sent := map[string]columns{}
	for _, row := range rows {
		c := read(row.JSON)
		sent[c.ID] = c
	}
	found := 0
	for _, frame := range s.Devo.Frames() {
		_, body, ok := bytes.Cut(frame, []byte("alert: "))
		if !ok {
			continue
		}
		is := read(body)
		if is.Name != "****SANITIZED****" || is.SubscriptionID != "****SANITIZED****" || strings.Contains(is.Properties.Description, "192.168.") {
			t.Fatalf("%+v", is)
		}
		was, ok := sent[is.ID]
		if !ok {
			continue
		}
		found++
		if is.Properties.Start != was.Properties.Start || is.Properties.Additional != was.Properties.Additional || len(is.Properties.ExtendedProperties) != len(was.Properties.ExtendedProperties) {
			t.Errorf("%+v was %+v", is, was)
		}
		for key, v := range is.Properties.ExtendedProperties {
			if text, ok := was.Properties.ExtendedProperties[key].(string); ok && v != "****SANITIZED****" {
				t.Errorf("%s: %v was %s", key, v, text)
			}
		}
	}
	if found != len(rows) {
		t.Errorf("%d of %d alerts at the endpoint", found, len(rows))
	}
	// The ids hold guids of alerts and subscriptions, and are under no rule; the sensors' names are.
	files, reasons := 0, 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("plant-")) || bytes.Contains(data, []byte("aUser")) {
			t.Errorf("%s shows a sensor's name", path)
		}
		for _, reason := range unusable.FindAllString(string(data), -1) {
			if reasons++; !strings.HasSuffix(reason, "bytes) has no id") {
				t.Errorf("%s: %s", path, reason)
			}
		}
		return err
	})
	if err != nil || files < 5 || reasons == 0 {
		t.Errorf("%d files with %d reasons of dead letters, %v", files, reasons, err)
	}
}

// unusable is the reason of a dead letter, as it stands in the files of the stream.
var unusable = regexp.MustCompile(`row \d+ of the page .{0,200}? has no id`)

func TestCheckValidatesObfuscationRules(t *testing.T) {
	s := newSite(t, simulator.Options{})
	s.withRules(`[{name: [properties, a], value: 0}]`)
	if output, code := s.check(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, output)
	}
	for rules, want := range map[string]string{
		`[{name: [properties, a], value: .nan}]`:                 "obfuscation_data[0].value",
		`[{name: [properties, a], string_patterns: ["(?<=x)"]}]`: "obfuscation_data[0].string_patterns[0]",
		`[{name: []}]`: "obfuscation_data[0].name",
	} {
		s.withRules(rules)
		s.fails(255, want)
	}
}
