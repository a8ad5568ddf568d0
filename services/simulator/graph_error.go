package simulator

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"defenderiot/services/simulator/kql"
)

// Messages of Resource Graph, as seen in public issues.
const (
	accessDenied   = "Access is denied to the requested resource. The user might not have enough permission."
	rateLimiting   = "Client application has been throttled and should not attempt to repeat the request until an amount of time has elapsed. Please see https://aka.ms/resourcegraph-throttling for help."
	invalidQuery   = "Query is invalid. Please refer to the documentation for the Azure Resource Graph service and fix the error before retrying."
	payloadTooLong = "Response payload size is %d, and has exceeded the limit of %d. Please consider querying less data at a time and make paginated call if needed."
	disallowed     = "Table %s is invalid, unsupported or disallowed."
)

// answerError is an error answer of Resource Graph.
type answerError struct {
	status int
	code   string
	body   string
}

func (e *answerError) Error() string { return fmt.Sprintf("%d %s", e.status, e.code) }

type errorDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Only with ParserFailure.
	Line     int    `json:"line,omitempty"`
	Position *int   `json:"characterPositionInLine,omitempty"`
	Token    string `json:"token,omitempty"`
	Expected string `json:"expectedToken,omitempty"`
}

// graphErrorBody is the envelope that Resource Graph puts around every error:
// the outer message helps support only, the useful code is in the details.
func graphErrorBody(code string, details ...errorDetail) string {
	return marshal(map[string]any{"error": map[string]any{
		"code": code,
		"message": "Please provide below info when asking for support: timestamp = " +
			kql.TicksOf(time.Now()).String() + ", correlationId = " + newGUID() + ".",
		"details": details,
	}})
}

func graphError(code, message string) string {
	return graphErrorBody(code, errorDetail{Code: code, Message: message})
}

// armError is the simpler envelope of Azure Resource Manager itself.
func armError(code, message string) string {
	return marshal(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

func badRequest(code, message string) *answerError {
	return &answerError{http.StatusBadRequest, code, graphErrorBody("BadRequest", errorDetail{Code: code, Message: message})}
}

func forbidden() *answerError {
	return &answerError{http.StatusForbidden, "AccessDenied", graphError("AccessDenied", accessDenied)}
}

// queryError turns a mistake in a query into the service's answer.
func queryError(err error) *answerError {
	var table *kql.UnknownTableError
	if errors.As(err, &table) {
		return badRequest("DisallowedLogicalTableName", fmt.Sprintf(disallowed, table.Table))
	}
	details := []errorDetail{{Code: "InvalidQuery", Message: invalidQuery}}
	var parse *kql.ParseError
	if errors.As(err, &parse) {
		details = append(details, errorDetail{
			Code: "ParserFailure", Message: "ParserFailure: " + parse.Reason,
			Line: parse.Line, Position: &parse.Column, Token: parse.Token,
		})
	}
	return &answerError{http.StatusBadRequest, "InvalidQuery", graphErrorBody("BadRequest", details...)}
}

func marshal(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "{}" // only maps and texts of our own come here
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// decodeStrict decodes JSON and refuses unknown names.
func decodeStrict(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func newGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand, since Go 1.24)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func itoa(n int) string { return strconv.Itoa(n) }
