package simulator

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
)

// page is one answer of Resource Graph.
type page struct {
	total     int
	rows      [][]byte
	truncated bool
	token     string
}

func (p *page) spoil(f Fault) {
	p.total += f.ExtraTotal
	p.rows = p.rows[:max(0, len(p.rows)-f.Omit)]
	for _, r := range f.Extra {
		p.rows = append(p.rows, r.JSON)
	}
	if f.Truncated {
		p.truncated, p.token = true, ""
	}
}

// append prints the answer. resultTruncated is a text in the service's API,
// and "false" also where more pages follow: only the token tells that.
func (p *page) append(b []byte) []byte {
	size := 160 + len(p.token)
	for _, r := range p.rows {
		size += len(r) + 1
	}
	if cap(b) < size {
		b = make([]byte, 0, size)
	}
	b = append(b, `{"totalRecords":`...)
	b = strconv.AppendInt(b, int64(p.total), 10)
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, int64(len(p.rows)), 10)
	b = append(b, `,"data":[`...)
	for i, r := range p.rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, r...)
	}
	b = append(b, `],"facets":[],"resultTruncated":"`...)
	b = strconv.AppendBool(b, p.truncated)
	b = append(b, '"')
	if p.token != "" {
		b = append(b, `,"$skipToken":"`...)
		b = append(b, p.token...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// skipToken is what is inside a token. The service says no more than that it
// captures "the next page size and offset, as well as the context of the
// query"; clients must take it as opaque.
type skipToken struct {
	Next    int    `json:"no"`
	Context string `json:"cx"`
}

func makeToken(next int, query string, in scope) string {
	b, err := json.Marshal(skipToken{next, tokenContext(query, in)})
	if err != nil {
		return "" // a number and a text: cannot fail
	}
	return base64.StdEncoding.EncodeToString(b)
}

func readToken(token, query string, in scope) (next int, ok bool) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return 0, false
	}
	var t skipToken
	if json.Unmarshal(b, &t) != nil || t.Next < 0 || t.Context != tokenContext(query, in) {
		return 0, false
	}
	return t.Next, true
}

func tokenContext(query string, in scope) string {
	sum := sha256.Sum256([]byte(in.key + "\x00" + strings.TrimSpace(query)))
	return hex.EncodeToString(sum[:12])
}
