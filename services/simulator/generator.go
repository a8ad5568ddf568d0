package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"time"
)

// GeneratorOptions are the settings of a [Generator]. Every field may be left
// at its zero value.
type GeneratorOptions struct {
	// Seed decides everything: equal options give equal alerts.
	Seed uint64
	// Subscriptions are where the alerts are; three made-up ones if empty.
	Subscriptions []string
	// Start is the earliest start time; 2026-11-20T10:00:00Z if zero.
	Start time.Time
	// Spread spreads start times over [Start, Start+Spread), in no order. If
	// it is 0 the alerts follow each other about a second apart.
	Spread time.Duration
	// Size is an alert's size in bytes, roughly; 1500 if 0. Below about
	// 1600 it has no effect on some of them.
	Size int
	// Plain leaves out the oddities: indented JSON, other than ASCII text,
	// large integers and the like.
	Plain bool
	// ChangeEvery, RepeatEvery and LateEvery make Feed, at every n-th alert,
	// change an earlier one, list an earlier one twice, and hold one back by
	// LateBy. 0 means never.
	ChangeEvery, RepeatEvery, LateEvery int
	LateBy                              time.Duration
}

// Generator makes alerts as Resource Graph shows them: from several
// subscriptions, sensors and engines, with start times of 0 to 7 fractional
// digits some of which are equal, and unless told otherwise with everything
// that JSON allows and a careless reader spoils. It is deterministic and safe
// for concurrent use.
type Generator struct {
	mu   sync.Mutex
	opts GeneratorOptions
	rng  *rand.Rand
	n    int
	last time.Time
}

// NewGenerator makes a generator.
func NewGenerator(o GeneratorOptions) *Generator {
	if len(o.Subscriptions) == 0 {
		o.Subscriptions = DefaultSubscriptions()
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	}
	if o.Size == 0 {
		o.Size = 1500
	}
	return &Generator{opts: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5eed))}
}

// DefaultSubscriptions are the subscriptions of a generator that was given
// none.
func DefaultSubscriptions() []string {
	return []string{
		"20ff7fc3-e762-44dd-bd96-b71116dcdc23",
		"5b1f9b3e-7d0a-4c38-9f53-3a6d1f0c8e01",
		"c0a7d4f2-11b8-4e6a-8a52-64f0b1d9e702",
	}
}

// Next makes an alert with the next start time.
func (g *Generator) Next() Row {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.make(g.nextStart(), "")
}

// NextAt makes an alert that starts at t, cut to 0 to 7 fractional digits.
func (g *Generator) NextAt(t time.Time) Row {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.make(t, "")
}

// Rows makes n alerts.
func (g *Generator) Rows(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = g.Next()
	}
	return rows
}

// Oddity is a row that is not as it should be.
type Oddity string

// The oddities of [Generator.Odd].
const (
	NoID         Oddity = "no-id"
	NullStart    Oddity = "null-start"
	NoStart      Oddity = "no-start"
	GarbageStart Oddity = "garbage-start"
	Huge         Oddity = "huge" // 10 MB
)

// Odd makes an alert with an oddity.
func (g *Generator) Odd(o Oddity) Row {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.make(g.nextStart(), o)
}

func (g *Generator) nextStart() time.Time {
	switch {
	case g.n > 0 && g.rng.IntN(8) == 0:
		return g.last // two alerts at one instant
	case g.opts.Spread > 0:
		g.last = g.opts.Start.Add(time.Duration(g.rng.Int64N(int64(g.opts.Spread))))
	case g.n == 0:
		g.last = g.opts.Start
	default:
		g.last = g.last.Add(time.Duration(g.rng.Int64N(int64(2 * time.Second))))
	}
	return g.last
}

// chance is true once in n times.
func (g *Generator) chance(n int) bool { return !g.opts.Plain && g.rng.IntN(n) == 0 }

func (g *Generator) make(start time.Time, odd Oddity) Row {
	g.n++
	kind := &alertKinds[g.rng.IntN(len(alertKinds))]
	size := g.opts.Size
	if odd == Huge {
		size = 10 << 20
	}
	w := &jsonWriter{b: make([]byte, 0, size+512), ascii: g.chance(20)}
	g.row(w, kind, start, odd, size)
	if g.chance(20) {
		var b bytes.Buffer
		if json.Indent(&b, w.b, "", "\t") == nil {
			return Row{JSON: b.Bytes()}
		}
	}
	return Row{JSON: w.b}
}

func (g *Generator) row(w *jsonWriter, kind *alertKind, start time.Time, odd Oddity, size int) {
	guid := g.guid()
	sub := g.opts.Subscriptions[g.rng.IntN(len(g.opts.Subscriptions))]
	location := []string{"eastus", "westeurope", "australiaeast"}[g.rng.IntN(3)]
	provider, group := "Microsoft.IoTSecurity", "deviceGroups"
	if g.rng.IntN(3) == 0 {
		provider, group = "microsoft.iotsecurity", "devicegroups"
	}
	base := "/subscriptions/" + sub + "/providers/" + provider + "/locations/" + location + "/" + group + "/default/"
	device := base + "devices/" + g.guid()
	id := func() {
		if odd != NoID {
			w.text("id", base+"alerts/"+guid)
		}
	}
	idLast := g.chance(10)
	w.open("", '{')
	if !idLast {
		id()
	}
	w.text("name", guid)
	w.text("type", alertType)
	w.text("tenantId", "00000000-0000-0000-0000-0000000000aa")
	w.text("kind", "")
	w.text("location", location)
	w.text("resourceGroup", "")
	w.text("subscriptionId", sub)
	w.raw("tags", "null")
	g.properties(w, kind, guid, device, start, odd, size)
	if kind.agent {
		at := start.UTC().Format("2006-01-02T15:04:05.0000000Z")
		w.open("systemData", '{')
		for _, who := range []string{"created", "lastModified"} {
			w.text(who+"By", "string")
			w.text(who+"ByType", "User")
			w.text(who+"At", at)
		}
		w.close('}')
	}
	if idLast {
		id()
	}
	w.close('}')
}

func (g *Generator) properties(w *jsonWriter, kind *alertKind, guid, device string, start time.Time, odd Oddity, size int) {
	source := fmt.Sprintf("192.168.%d.%d", g.rng.IntN(200), 1+g.rng.IntN(250))
	destination := fmt.Sprintf("192.168.%d.%d", g.rng.IntN(200), 1+g.rng.IntN(250))
	stamp := stampOf(start, g.rng.IntN(8))
	w.open("properties", '{')
	w.text("systemAlertId", guid)
	if !kind.agent {
		w.text("displayName", kind.title)
		w.text("description", fmt.Sprintf(kind.text, source, destination))
	}
	w.text("alertType", kind.alertType)
	w.text("severity", kind.severity)
	w.text("status", []string{"New", "New", "New", "InProgress"}[g.rng.IntN(4)])
	w.text("intent", kind.intent)
	w.text("productComponentName", kind.engine)
	switch odd {
	case NoStart:
	case NullStart:
		w.raw("startTimeUtc", "null")
	case GarbageStart:
		w.text("startTimeUtc", "yesterday, at noon")
	default:
		w.text("startTimeUtc", stamp)
	}
	w.text("endTimeUtc", stamp)
	w.text("azureResourceId", device)
	g.extended(w, kind, source, destination, device)
	w.open("entities", '[')
	w.open("", '{')
	w.text("$id", "1")
	if kind.agent {
		w.text("CommandLine", "docker run --privileged")
		w.text("Type", "process")
	} else {
		w.text("Address", source)
		w.text("Type", "ip")
	}
	w.close('}')
	w.close(']')
	if kind.agent {
		w.raw("techniques", `[{"id":"T1005","name":"Data from Local System","link":"https://attack.mitre.org/techniques/T1005"}]`)
	} else {
		w.raw("techniques", "[]")
	}
	after := 20 // what follows, roughly
	if kind.agent {
		after = 250
	}
	g.pad(w, size-after)
	w.close('}')
}

func (g *Generator) extended(w *jsonWriter, kind *alertKind, source, destination, device string) {
	sensor := fmt.Sprintf("plant-%d", 1+g.rng.IntN(12))
	w.open("extendedProperties", '{')
	if kind.agent {
		w.text("CommandLine", "docker run --privileged")
		w.text("User Name", "aUser")
		w.text("UserId", "")
		w.raw("ParentProcessId", itoa(g.rng.IntN(30000)))
		w.text("DeviceId", "device-1")
	} else {
		w.text("SensorId", sensor)
		w.text("DeviceId", sensor)
		w.text("SourceDeviceAddress", source)
		w.text("DestinationDeviceAddress", destination)
		w.text("Protocol", kind.protocol)
		w.text("isNew", "True")
		if g.rng.IntN(3) == 0 {
			w.open("DeviceResourceIds", '[')
			w.text("", device)
			w.close(']')
		}
	}
	if g.chance(10) {
		w.raw("SequenceNumber", fmt.Sprint(uint64(1)<<53+1+uint64(g.rng.IntN(1000))))
	}
	if g.chance(10) {
		w.raw("Score", "1.0")
		w.raw("Ratio", "1.50E+2")
	}
	if g.chance(10) {
		w.text("Raw", "C:\\Temp\\\"quoted\".log\n\tsecond line <&> #1\u0001")
	}
	w.close('}')
}

// pad adds words until the whole is about size bytes long.
func (g *Generator) pad(w *jsonWriter, size int) {
	missing := size - len(w.b)
	if missing <= 0 {
		return
	}
	from := words
	if g.opts.Plain || g.rng.IntN(4) > 0 {
		from = plainWords
	}
	var b strings.Builder
	b.Grow(missing + 16)
	for b.Len() < missing {
		b.WriteString(from[g.rng.IntN(len(from))])
		b.WriteByte(' ')
	}
	w.text("additionalInformation", b.String())
}

func (g *Generator) guid() string {
	a, b := g.rng.Uint64(), g.rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// stampOf prints a time with so many fractional digits, cutting the rest.
func stampOf(t time.Time, digits int) string {
	t = t.UTC()
	s := t.Format("2006-01-02T15:04:05.0000000")
	if digits == 0 {
		return s[:19] + "Z"
	}
	return s[:20+digits] + "Z"
}

var (
	statusMember   = regexp.MustCompile(`("status"\s*:\s*)"[^"]*"`)
	severityMember = regexp.MustCompile(`("severity"\s*:\s*)"[^"]*"`)
	endMember      = regexp.MustCompile(`("endTimeUtc"\s*:\s*)"[^"]*"`)
	newMember      = regexp.MustCompile(`("isNew"\s*:\s*)"[^"]*"`)
	modifiedMember = regexp.MustCompile(`("lastModifiedAt"\s*:\s*)"[^"]*"`)
)

// Changed returns the alert as it is after someone closed it at t: same id and
// start, other status, severity, end and isNew.
func Changed(r Row, t time.Time) Row {
	at := `${1}"` + stampOf(t, 7) + `"`
	b := statusMember.ReplaceAll(r.JSON, []byte(`${1}"Closed"`))
	b = severityMember.ReplaceAll(b, []byte(`${1}"Low"`))
	b = newMember.ReplaceAll(b, []byte(`${1}"False"`))
	b = endMember.ReplaceAll(b, []byte(at))
	b = modifiedMember.ReplaceAll(b, []byte(at))
	return Row{JSON: b}
}
