//go:build receivers && linux

package receivers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"defenderiot/services/simulator"
)

// shapes are alerts that a careless sender or receiver spoils; ID and START are replaced.
var shapes = []string{
	// Other than ASCII: accents, Chinese, emoji, right to left, a combining accent, line separators, a byte order mark.
	"{\"id\":\"ID\",\"type\":\"TYPE\",\"properties\":{\"startTimeUtc\":\"START\",\"text\":\"Zürich Łódź 北京 🏭 שלום e\u0301 \u2028 \u2029 \u0085 \ufeff\",\"ключ\":1}}",
	// Line breaks and tabs between tokens, of every kind.
	"{\n\t\"id\"\t:\t\"ID\",\r\n\t\"type\": \"TYPE\",\r\t\"properties\": {\n\n\t\t\"startTimeUtc\": \"START\",\n\t\t\"list\": [\n\t\t\t1,\n\t\t\t2\n\t\t]\n\t}\n}",
	// Indented with blanks.
	"{\n    \"id\": \"ID\",\n    \"type\": \"TYPE\",\n    \"properties\": {\n        \"startTimeUtc\": \"START\",\n        \"empty\": { },\n        \"none\": [ ]\n    }\n}",
	// Escaped line breaks, tabs and control characters in texts, also as numbers.
	`{"id":"ID","type":"TYPE","properties":{"startTimeUtc":"START","text":"line one\nline two\r\n\tindented \u0000 \u001b[31m \u007f \b\f","number":"\u000a\u0009"}}`,
	// What syslog programs know: priorities, tags, counts, templates, structured data, and their escapes.
	`{"id":"ID","type":"TYPE","properties":{"startTimeUtc":"START","text":"<13>1 2026-01-01T00:00:00Z h a - - [x@1 y=\"z\"] 42 <14>Jan  1 00:00:00 h tag: @cee: {} #011 #012 \\#012 %rawmsg% ${MESSAGE} $(exec)"}}`,
	// Number signs, quotes, backslashes, markup.
	`{"id":"ID","type":"TYPE","properties":{"startTimeUtc":"START","#":"#1 # ##","quotes":"\"'` + "`" + `\\\" \\\\ \/ <&>","path":"C:\\Temp\\new"}}`,
	// Raw delete and control characters of Latin-1, which JSON allows.
	"{\"id\":\"ID\",\"type\":\"TYPE\",\"properties\":{\"startTimeUtc\":\"START\",\"text\":\"\u007f \u0080 \u009f \u00a0\"}}",
	// Numbers that no floating point holds, equal names, empty names, blanks at the end of texts.
	`{"id":"ID","type":"TYPE","properties":{"startTimeUtc":"START","n":9007199254740993,"r":1.50E+2,"n":-0.0,"":"","blank":"  text \t "}}`,
}

const alertType = "microsoft.iotsecurity/locations/devicegroups/alerts"

// awkward makes count alerts of the shapes in turn, and big ones whose bodies are a mebibyte and more.
func awkward(count, big int, begin time.Time) []simulator.Row {
	sub := simulator.DefaultSubscriptions()[0]
	var rows []simulator.Row
	for i := range count {
		start := begin.Add(time.Duration(i) * time.Second).UTC().Format("2006-01-02T15:04:05.0000000Z")
		text := strings.NewReplacer(
			"ID", fmt.Sprintf("/subscriptions/%s/providers/Microsoft.IoTSecurity/locations/eastus/deviceGroups/default/alerts/awkward-%05d", sub, i),
			"TYPE", alertType, "START", start).Replace(shapes[i%len(shapes)])
		rows = append(rows, simulator.Row{JSON: []byte(text)})
	}
	generator := simulator.NewGenerator(simulator.GeneratorOptions{Seed: 77, Size: 1<<20 + 1000, Start: begin})
	return append(rows, generator.Rows(big)...)
}

// expected is the body without the two members and its closing brace, as the wire format
// says: line breaks between tokens left out, all else as Azure sent it. It shares nothing with pkg/devo.
func expected(row []byte) string {
	row = bytes.TrimSpace(row)
	var b strings.Builder
	for i, inside := 0, false; i < len(row)-1; i++ {
		c := row[i]
		switch {
		case inside && c == '\\':
			b.WriteByte(c)
			i++
			b.WriteByte(row[i])
			continue
		case c == '"':
			inside = !inside
		case !inside && (c == '\n' || c == '\r'):
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// identity is the id in a body, in lower case; "" if the body is none.
func identity(body []byte) string {
	var alert struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &alert) != nil {
		return ""
	}
	return strings.ToLower(alert.ID)
}
