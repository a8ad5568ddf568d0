package collector

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// style is how a text stands out.
type style int

const (
	plain style = iota
	bold
	dim
	good
	warn
	bad
)

// codes are the terminal's sequences for the styles.
var codes = map[style]string{bold: "1", dim: "2", good: "32", warn: "33", bad: "1;31"}

// span is a text of one style.
type span struct {
	text  string
	style style
}

// page is lines for a terminal, or for a file.
type page [][]span

func (p *page) add(spans ...span) { *p = append(*p, spans) }

// do adds what is to be done, on two lines at most.
func (p *page) do(remedy string, width int) {
	label := "      do "
	for _, text := range wrap(remedy, width-len(label), 2) {
		p.add(span{label, good}, span{text, plain})
		label = "         "
	}
}

// cut leaves at most n lines; the last one says how many are missing.
func (p page) cut(n int) page {
	if len(p) <= n {
		return p
	}
	if n < 1 {
		return nil
	}
	return append(p[:n-1:n-1], []span{{fmt.Sprintf("… %d more lines: a taller terminal, or `collector status`", len(p)-n+1), dim}})
}

// text is the page with a line break behind each line, cut to width columns (0: whole).
func (p page) text(width int, colours bool) string {
	var b strings.Builder
	for _, line := range p {
		writeLine(&b, line, width, colours)
		b.WriteByte('\n')
	}
	return b.String()
}

func writeLine(b *strings.Builder, line []span, width int, colours bool) {
	left := width
	for i, s := range line {
		text := printable(s.text)
		if i == len(line)-1 {
			text = strings.TrimRight(text, " ")
		}
		if width > 0 {
			if n := utf8.RuneCountInString(text); n > left {
				text = string([]rune(text)[:max(left, 0)])
			}
			left -= utf8.RuneCountInString(text)
		}
		if code := codes[s.style]; colours && code != "" && text != "" {
			text = "\x1b[" + code + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
}

// printable keeps what others have written from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// table is lines of columns under a head.
type table struct {
	head []string
	rows [][]span
}

// page lays the table out; columns that do not fit into width (0: all fit) are left out from the right. A table
// without rows is nothing.
func (t table) page(width int) (out page) {
	if len(t.rows) == 0 {
		return nil
	}
	widths := make([]int, len(t.head))
	for i, name := range t.head {
		widths[i] = utf8.RuneCountInString(name)
		for _, row := range t.rows {
			if i < len(row) {
				widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
			}
		}
	}
	columns, used := 0, 0
	for _, w := range widths {
		if used += w + 2; width > 0 && columns > 0 && used-2 > width {
			break
		}
		columns++
	}
	var head []span
	for i, name := range t.head[:columns] {
		head = append(head, span{pad(name, widths[i]), dim})
	}
	out.add(head...)
	for _, row := range t.rows {
		row = row[:min(columns, len(row))]
		for len(row) > 1 && row[len(row)-1].text == "" {
			row = row[:len(row)-1]
		}
		var line []span
		for i, cell := range row {
			line = append(line, span{pad(cell.text, widths[i]), cell.style})
		}
		out.add(line...)
	}
	return out
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))+2)
}

// wrap breaks a text at blanks into at most lines lines of width columns; what is left over follows on the last one,
// where it is cut. A width below 20 breaks nothing.
func wrap(text string, width, lines int) (out []string) {
	if text == "" {
		return nil
	}
	for len(out) < lines-1 && width >= 20 && utf8.RuneCountInString(text) > width {
		at := strings.LastIndexByte(string([]rune(text)[:width]), ' ')
		if at <= 0 {
			break
		}
		out, text = append(out, text[:at]), strings.TrimLeft(text[at:], " ")
	}
	return append(out, text)
}
