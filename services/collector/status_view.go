package collector

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"defenderiot/pkg/certificate"
	"defenderiot/proto"
	"defenderiot/services/dedup"
)

// view arranges the status for width columns and height lines; 0 is without a bound. What is wrong comes first and
// takes half of the height at most; columns that do not fit are left out from the right, so the last ones matter least.
func (s *Status) view(width, height int) page {
	var p page
	p.add(span{"collector status  ", bold}, span{s.Time.Format("2006-01-02 15:04:05 UTC"), plain}, span{"  " + s.verdict(), s.verdictStyle()})
	wrong := s.wrong(width)
	var rest page
	for _, section := range []page{s.viewInputs(width), s.viewFlow(), s.viewOutputs(width), s.viewCertificates(width), s.viewProcesses(width)} {
		rest = append(rest, section...)
	}
	if height > 0 {
		wrong = wrong.cut(max(height/2-1, height-1-len(rest)))
		rest = rest.cut(height - 1 - len(wrong))
	}
	return append(append(p, wrong...), rest...)
}

func (s *Status) verdict() string {
	critical := 0
	for _, p := range s.Problems {
		if p.Critical {
			critical++
		}
	}
	serious := 0
	for _, e := range s.Errors {
		if !e.Warning {
			serious++
		}
	}
	if len(s.Problems) == 0 && len(s.Errors) == 0 {
		return "all is well"
	}
	return fmt.Sprintf("%d critical, %d warnings, %d errors", critical, len(s.Problems)-critical+len(s.Errors)-serious, serious)
}

func (s *Status) verdictStyle() style {
	style := good
	for _, p := range s.Problems {
		if p.Critical {
			return bad
		}
		style = warn
	}
	for _, e := range s.Errors {
		if !e.Warning {
			return bad
		}
		style = warn
	}
	return style
}

// wrong are the problems, then the errors behind them, each with what to do.
func (s *Status) wrong(width int) (out page) {
	for _, p := range s.Problems {
		label, style := "WARNING  ", warn
		if p.Critical {
			label, style = "CRITICAL ", bad
		}
		line := []span{{label, style}, {p.Name + ": ", plain}, {p.Text, bold}}
		if remedy := (span{"; do: " + p.Do, dim}); width <= 0 || utf8.RuneCountInString(label+p.Name+p.Text+remedy.text)+2 <= width {
			out.add(append(line, remedy)...)
			continue
		}
		out.add(line...)
		out.do(p.Do, width)
	}
	remedy := ""
	for _, e := range s.Errors {
		label, style := "ERROR    ", bad
		if e.Warning {
			label, style = "WARNING  ", warn
		}
		for i, text := range wrap(e.Error, width-len(label), 2) {
			if i > 0 {
				label = strings.Repeat(" ", len(label))
			}
			out.add(span{label, style}, span{text, plain})
		}
		often := "once, " + short(s.Time.Sub(e.Last)) + " ago"
		if e.Count > 1 {
			often = fmt.Sprintf("%d times in %s, last %s ago", e.Count, short(s.Time.Sub(e.Since)), short(s.Time.Sub(e.Last)))
		}
		out.add(span{fmt.Sprintf("         %s; %s %s, %s", often, e.Program, e.Instance, e.What), dim})
		if e.Remedy != remedy { // one cause shows at several places
			out.do(e.Remedy, width)
		}
		remedy = e.Remedy
	}
	return out
}

func (s *Status) viewInputs(width int) page {
	t := table{head: []string{"input", "position", "last page", "rows/s", "new/s", "quota left", "429/min", "generation", "windows short", "active fetcher"}}
	for _, source := range keys(s.Sources) {
		record := s.Sources[source]
		name, _, _ := strings.Cut(source, ",")
		in := s.Inputs[name]
		if in == nil {
			in = &InputStatus{}
		}
		row := []span{
			{name, bold}, {record.LastEventTime.Format("01-02 15:04:05") + " (" + short(s.Time.Sub(record.LastEventTime)) + ")", plain},
			{"?", warn}, rate(in.RowsPerSecond), rate(in.NewPerSecond), {"?", dim}, {fmt.Sprintf("%.0f", in.ThrottledPerMinute), plain},
			{fmt.Sprint(record.Generation), plain}, {fmt.Sprint(record.Rescan), plain}, {in.Active, plain},
		}
		if in.LastPage != nil {
			row[2] = span{short(s.Time.Sub(*in.LastPage)) + " ago", plain}
		}
		if in.QuotaRemaining != nil {
			row[5] = span{fmt.Sprintf("%.0f", *in.QuotaRemaining), plain}
			if *in.QuotaRemaining <= quotaUsed {
				row[5].style = warn
			}
		}
		if in.ThrottledPerMinute >= 1 {
			row[6].style = warn
		}
		t.rows = append(t.rows, row)
	}
	for _, name := range keys(s.Inputs) {
		if !slices.ContainsFunc(keys(s.Sources), func(source string) bool { return strings.HasPrefix(source, name+",") }) {
			t.rows = append(t.rows, []span{{name, bold}, {"no position yet", warn}})
		}
	}
	return t.page(width)
}

// viewFlow is where alerts are on their way, one line each.
func (s *Status) viewFlow() (out page) {
	e := s.Events
	oldest := span{"", plain}
	if e.Waiting > 0 {
		oldest = span{", the oldest " + short(time.Duration(e.Oldest*float64(time.Second))), plain}
	}
	out.add(span{"flow    ", dim}, span{fmt.Sprintf("received %d, unique %d, duplicates %d; waiting for dedup %d", e.Received, e.Unique, e.Duplicates, e.Waiting), plain}, oldest,
		span{", " + rate(e.UniquePerSecond).text + "/s", plain})
	line := []span{{"streams ", dim}}
	for _, name := range []string{proto.StreamRaw, proto.StreamUnique, proto.StreamDead} {
		v := s.Streams[name]
		if v == nil {
			continue
		}
		style := plain
		if v.Fill > fillsFrom {
			style = bad
		}
		line = append(line, span{fmt.Sprintf("%s %.0f %% of %s  ", name, 100*v.Fill, size(v.Limit)), style})
	}
	out.add(line...)
	letters := []span{{"dead    ", dim}, {fmt.Sprintf("%d dead letters", s.DeadLetters), plain}}
	if s.DeadLetters > 0 {
		letters[1].style = warn
	}
	if l := s.LastDeadLetter; l != nil {
		letters = append(letters, span{fmt.Sprintf(", the last %s ago by %s: %s", short(s.Time.Sub(l.Time)), strings.TrimSpace(l.Stage+" "+l.Output), l.Reason), plain})
	}
	out.add(letters...)
	if l := s.Loss; l != nil {
		what, style := "lost", plain
		if l.Restored {
			what = "copied"
		}
		if dedup.ShowsLoss(l, s.Time) {
			style = warn
		}
		out.add(span{fmt.Sprintf("%-8s", what), dim}, span{fmt.Sprintf("%s: %s; claims released %d, no longer in Azure %d", l.Noticed.Format("01-02 15:04:05"), l.State, l.Released, l.Gone), style})
	}
	if len(s.Replays) > 0 {
		out.add(span{"replays ", dim}, span{fmt.Sprintf("%d running: %s (`collector replay status`)", len(s.Replays), strings.Join(s.Replays, ", ")), plain})
	}
	return out
}

func (s *Status) viewOutputs(width int) page {
	t := table{head: []string{"output", "endpoint", "pending", "oldest", "conf/s", "delay", "proof", "unconf", "possibly resent", "confirmed", "dead", "rotations", "senders"}}
	for _, name := range keys(s.Outputs) {
		o := s.Outputs[name]
		reach, delay, oldest := span{"?", warn}, span{"-", dim}, span{"-", dim}
		if o.Reachable != nil {
			if reach = (span{"away", bad}); *o.Reachable {
				reach = span{"reached", good}
			}
		}
		if o.Delay != nil {
			delay = span{short(time.Duration(*o.Delay * float64(time.Second))), plain}
		}
		if waited := time.Duration(o.Oldest * float64(time.Second)); waited > 0 {
			if oldest = (span{short(waited), plain}); waited > lateAfter {
				oldest.style = bad
			}
		}
		proof := span{string(o.Proof), good}
		if o.Proof == proto.ProofUnproved {
			proof.style = warn
		}
		t.rows = append(t.rows, []span{
			{name, bold}, reach, {fmt.Sprint(o.Pending), plain}, oldest, rate(o.ConfirmedPerSecond), delay, proof, {fmt.Sprint(o.Unconfirmed), plain},
			{fmt.Sprint(o.Resent), plain}, {fmt.Sprint(o.Confirmed), plain}, {fmt.Sprint(o.Dead), plain}, {fmt.Sprint(o.Rotations), plain}, {fmt.Sprint(o.Senders), plain},
		})
	}
	return t.page(width)
}

func (s *Status) viewCertificates(width int) page {
	t := table{head: []string{"certificate", "file", "ends", "left"}}
	for _, v := range s.Certificates {
		left := v.End.Sub(s.Time)
		style := plain
		switch {
		case left < criticalExpiry:
			style = bad
		case left < certificate.Notice:
			style = warn
		}
		text := "over"
		if left > 0 {
			text = short(left)
		}
		t.rows = append(t.rows, []span{{v.Of, plain}, {v.File, plain}, {v.End.Format("2006-01-02 15:04"), plain}, {text, style}})
	}
	return t.page(width)
}

func (s *Status) viewProcesses(width int) page {
	t := table{head: []string{"process", "instance", "heard of", "up", "memory", "version", "not ready"}}
	for _, p := range s.Processes {
		heard := span{short(time.Duration(p.Silent*float64(time.Second))) + " ago", plain}
		if !p.Heard {
			heard = span{"not for " + strings.TrimSuffix(heard.text, " ago"), bad}
		}
		memory := size(uint64(p.Memory))
		if p.Limit > 0 {
			memory += " of " + size(uint64(p.Limit))
		}
		t.rows = append(t.rows, []span{
			{p.Program, bold}, {p.Instance, plain}, heard, {short(s.Time.Sub(p.Started)), plain}, {memory, plain}, {p.Build, plain},
			{strings.Join(slices.Sorted(maps.Keys(p.NotReady)), ", "), warn},
		})
	}
	return t.page(width)
}

func rate(perSecond float64) span {
	switch {
	case perSecond == 0:
		return span{"0", dim}
	case perSecond < 10:
		return span{fmt.Sprintf("%.1f", perSecond), plain}
	}
	return span{fmt.Sprintf("%.0f", perSecond), plain}
}

// short is a duration to two digits or so.
func short(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d < 10*time.Second:
		return sign + fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return sign + fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return sign + fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return sign + fmt.Sprintf("%dh", int(d.Hours()))
	}
	return sign + fmt.Sprintf("%dd", int(d.Hours()/24))
}
