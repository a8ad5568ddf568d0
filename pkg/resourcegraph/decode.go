package resourcegraph

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"defenderiot/pkg/fault"
)

const (
	// maxDepth is how deep an answer may nest, as in encoding/json. The validator recurses, and
	// a stack that overflows ends the process.
	maxDepth = 10_000
	// maxID is how long an id may be. Azure's resource ids stay below 2 KiB.
	maxID = 8 << 10
)

// decode reads an answer's body. The rows keep their bytes; of each row no more than the few fields are
// decoded that a Row has, since decoding 1,000 rows of 1.5 KB with encoding/json costs several times
// what the rest of the request does. Where a key repeats, the last one counts, as in encoding/json.
func decode(body []byte) (*Page, error) {
	trimmed := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if depth(trimmed) > maxDepth {
		return nil, fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	if !gjson.ValidBytes(trimmed) {
		return nil, syntaxError(trimmed)
	}
	root := gjson.ParseBytes(trimmed)
	if !root.IsObject() {
		return nil, errors.New("JSON, but no object")
	}
	p := &Page{Count: -1, Total: -1, Bytes: len(body)}
	data := gjson.Result{}
	var failed error
	root.ForEach(func(key, value gjson.Result) bool {
		var err error
		switch unquote(key.Raw) {
		case "totalRecords":
			p.Total, err = integer(value)
		case "count":
			p.Count, err = integer(value)
		case "resultTruncated":
			p.Truncated = truncated(value)
		case "$skipToken":
			p.SkipToken, err = text(value)
		case "data":
			data = value
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", unquote(key.Raw), err)
		}
		return true
	})
	switch {
	case failed != nil:
		return nil, failed
	case !data.Exists():
		return nil, errors.New(`JSON without "data"`)
	case !data.IsArray():
		return nil, errors.New(`"data" is no array of rows`)
	}
	p.Rows = make([]Row, 0, min(max(p.Count, 0), MaxTop))
	data.ForEach(func(_, value gjson.Result) bool {
		p.Rows = append(p.Rows, row(len(p.Rows), trimmed[value.Index:value.Index+len(value.Raw):value.Index+len(value.Raw)], value))
		return true
	})
	if p.Count < 0 {
		p.Count = int64(len(p.Rows))
	}
	return p, nil
}

// row takes from a row what names it; position counts from 0.
func row(position int, raw []byte, value gjson.Result) Row {
	r := Row{Raw: raw}
	if !value.IsObject() {
		r.Err = unusable(position, r, "", "is no object")
		return r
	}
	var id, name, subscription, properties gjson.Result
	value.ForEach(func(key, value gjson.Result) bool {
		switch unquote(key.Raw) {
		case "id":
			id = value
		case "name":
			name = value
		case "subscriptionId":
			subscription = value
		case "properties":
			properties = value
		}
		return true
	})
	if subscription.Type == gjson.String {
		r.Subscription = lower(subscription.Raw)
	}
	if properties.IsObject() {
		var begin gjson.Result
		properties.ForEach(func(key, value gjson.Result) bool {
			if unquote(key.Raw) == "startTimeUtc" {
				begin = value
			}
			return true
		})
		if begin.Type == gjson.String {
			r.Start = parseStart(unquote(begin.Raw))
		}
	}
	switch {
	case !id.Exists():
		r.Err = unusable(position, r, name.Raw, "has no id")
	case id.Type != gjson.String:
		r.Err = unusable(position, r, name.Raw, "has an id that is no text")
	case len(id.Raw) > maxID:
		r.Err = unusable(position, r, name.Raw, fmt.Sprintf("has an id of %d bytes", len(id.Raw)))
	default:
		r.ID = lower(id.Raw)
		if strings.TrimSpace(r.ID) == "" {
			r.ID, r.Err = "", unusable(position, r, name.Raw, "has an empty id")
		}
	}
	return r
}

// Unusable is the error of a row that is no object or has no usable id. Its text names the row: by its place,
// size and hash, and by subscription and name where these are the guids they should be.
type Unusable struct {
	position, size int
	names, why     string
}

func (u *Unusable) Error() string { return u.text(u.names) }

// Anonymous is Error without anything that is taken or computed from the row's values, for rows of which some
// values must not show. The hash is one: with the rest of the row known, it confirms a guess.
func (u *Unusable) Anonymous() string { return u.text("") }

func (u *Unusable) text(names string) string {
	return fmt.Sprintf("row %d of the page (%d bytes%s) %s", u.position, u.size, names, u.why)
}

func unusable(position int, r Row, name, why string) error {
	sum := sha256.Sum256(r.Raw)
	names := fmt.Sprintf(", SHA-256 %x…", sum[:8])
	if guid(r.Subscription) {
		names += ", subscription " + r.Subscription
	}
	if n := unquote(name); guid(n) {
		names += ", name " + n
	}
	return fault.Permanent(&Unusable{position: position + 1, size: len(r.Raw), names: names, why: why})
}

func guid(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if s[i] != '-' {
				return false
			}
		case !digit(s[i]) && (s[i]|0x20 < 'a' || s[i]|0x20 > 'f'):
			return false
		}
	}
	return true
}

// unquote returns the text of a valid JSON string. What encoding/json would return is what counts, down
// to lone surrogates and invalid UTF-8; only plain strings, nearly all, are taken as they stand.
func unquote(raw string) string {
	if len(raw) < 2 {
		return ""
	}
	if s := raw[1 : len(raw)-1]; strings.IndexByte(s, '\\') < 0 && utf8.ValidString(s) {
		return s
	}
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return ""
	}
	return s
}

// lower returns the text of a JSON string in lower case and in memory of its own: a caller that keeps
// ids must not keep whole pages with them.
func lower(raw string) string { return strings.ToLower(strings.Clone(unquote(raw))) }

func integer(v gjson.Result) (int64, error) {
	if v.Type == gjson.Null {
		return -1, nil
	}
	n, err := strconv.ParseInt(v.Raw, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("is no count")
	}
	return n, nil
}

func text(v gjson.Result) (string, error) {
	switch v.Type {
	case gjson.Null:
		return "", nil
	case gjson.String:
		return strings.Clone(unquote(v.Raw)), nil
	}
	return "", errors.New("is no text")
}

// truncated reads resultTruncated, which is a text that says "true" or "false". Whatever does not say
// false is taken for true: the caller then splits its window, which loses nothing.
func truncated(v gjson.Result) bool {
	if v.Type == gjson.String {
		return !strings.EqualFold(unquote(v.Raw), "false")
	}
	return v.Type != gjson.Null && v.Type != gjson.False
}

// depth returns how deep the brackets outside of strings nest, which for valid JSON is its depth.
func depth(body []byte) int {
	var now, deepest int
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			if now++; now > deepest {
				deepest = now
			}
		case '}', ']':
			now--
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		}
	}
	return deepest
}

// syntaxError says where body stops being JSON, without quoting it.
func syntaxError(body []byte) error {
	var syntax *json.SyntaxError
	if err := json.Unmarshal(body, new(json.RawMessage)); errors.As(err, &syntax) {
		return fmt.Errorf("broken JSON at byte %d of %d: %w", syntax.Offset, len(body), err)
	}
	return fmt.Errorf("broken JSON in %d bytes", len(body))
}
