package proto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// canonicalJSON writes raw with sorted keys, no white space and numbers in one form, leaving out the
// ignored paths. It differs from RFC 8785 in one point on purpose: numbers keep their full value instead
// of passing through a float64, because alerts hold integers beyond 2^53.
func canonicalJSON(raw []byte, ignore []string) ([]byte, error) {
	if len(raw) == 0 {
		return []byte("null"), nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes after the end")
	}
	for _, path := range ignore {
		if inside, ok := strings.CutPrefix(path, "properties."); ok {
			removePath(v, strings.Split(inside, "."))
		}
	}
	v, err := normalise(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// removePath deletes the member at path; lists are passed through, so that a path reaches every element.
func removePath(v any, path []string) {
	switch v := v.(type) {
	case map[string]any:
		if len(path) == 1 {
			delete(v, path[0])
			return
		}
		removePath(v[path[0]], path[1:])
	case []any:
		for _, e := range v {
			removePath(e, path)
		}
	}
}

// normalise gives every number the one form that its value has.
func normalise(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			n, err := normalise(e)
			if err != nil {
				return nil, err
			}
			v[k] = n
		}
	case []any:
		for i, e := range v {
			n, err := normalise(e)
			if err != nil {
				return nil, err
			}
			v[i] = n
		}
	case json.Number:
		return canonicalNumber(v)
	}
	return v, nil
}

// canonicalNumber writes a JSON number exactly, as an integer without leading zeros or as
// <digits>e<exponent> without trailing zeros. The exponent is bounded: a number like 1e999999999 is
// kept as written rather than expanded.
func canonicalNumber(n json.Number) (json.Number, error) {
	s := n.String()
	negative := strings.HasPrefix(s, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(s, "-")), "e")
	exp := new(big.Int)
	if exponent != "" {
		if _, ok := exp.SetString(strings.TrimPrefix(exponent, "+"), 10); !ok {
			return "", fmt.Errorf("number %q", s)
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exp.Sub(exp, big.NewInt(int64(len(fraction))))
	trimmed := strings.TrimRight(digits, "0")
	exp.Add(exp, big.NewInt(int64(len(digits)-len(trimmed))))
	if trimmed == "" {
		return "0", nil
	}
	sign := ""
	if negative {
		sign = "-"
	}
	if exp.Sign() >= 0 && exp.IsInt64() && exp.Int64() <= 40 {
		return json.Number(sign + trimmed + strings.Repeat("0", int(exp.Int64()))), nil
	}
	return json.Number(sign + trimmed + "e" + exp.String()), nil
}
